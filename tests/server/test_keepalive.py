"""A single timer checks every connection once an interval."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rooms.server.keepalive import SLOTS, Keepalive


class Clock:
    """An event loop's clock and timers, advanced by the test."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Any, tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Any, *arguments: Any) -> None:
        self.timers.append((when, call, arguments))

    def advance(self, late: float = 0.0) -> None:
        """Run the next timer, with this delay."""
        when, call, arguments = self.timers.pop(0)
        self.now = when + late
        call(*arguments)


class Connection:
    def __init__(self) -> None:
        self.checks = 0

    def check_alive(self) -> None:
        self.checks += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


def test_each_connection_is_checked_once_an_interval_with_one_timer(clock: Clock) -> None:
    keepalive, connections = Keepalive(20), [Connection() for _ in range(3 * SLOTS)]
    for connection in connections:
        keepalive.add(connection)
    for slot in range(1, SLOTS + 1):
        assert len(clock.timers) == 1
        clock.advance()
        assert sum(connection.checks for connection in connections) == 3 * slot
    assert {connection.checks for connection in connections} == {1}
    assert clock.now == pytest.approx(20)


def test_check_is_postponed_after_the_event_loop_was_blocked(clock: Clock) -> None:
    keepalive, connection = Keepalive(20), Connection()
    keepalive.add(connection)
    clock.advance(late=30)
    assert connection.checks == 0
    clock.advance()
    assert connection.checks == 1


def test_timer_stops_without_connections(clock: Clock) -> None:
    keepalive, connection = Keepalive(20), Connection()
    keepalive.discard(connection, keepalive.add(connection))
    clock.advance()
    assert clock.timers == []
    keepalive.add(connection)
    assert len(clock.timers) == 1


async def test_instances_are_shared_by_event_loop_and_interval() -> None:
    loop = asyncio.get_running_loop()
    assert Keepalive.of(loop, 20) is Keepalive.of(loop, 20)
    assert Keepalive.of(loop, 20) is not Keepalive.of(loop, 30)
