"""One timer for all: everybody is looked at once a round, and nobody after a standstill."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rooms.server.keepalive import PARTS, Keepalive


class Clock:
    """An event loop's time and timers, driven by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Any, tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Any, *arguments: Any) -> None:
        self.timers.append((when, call, arguments))

    def advance(self, late: float = 0.0) -> None:
        """Run the next timer, so many seconds late."""
        when, call, arguments = self.timers.pop(0)
        self.now = when + late
        call(*arguments)


class Socket:
    def __init__(self) -> None:
        self.looks = 0

    def look(self) -> None:
        self.looks += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


def test_each_is_looked_at_once_a_round_with_one_timer(clock: Clock) -> None:
    keepalive, sockets = Keepalive(20), [Socket() for _ in range(3 * PARTS)]
    for socket in sockets:
        keepalive.add(socket)
    for part in range(1, PARTS + 1):
        assert len(clock.timers) == 1
        clock.advance()
        assert sum(socket.looks for socket in sockets) == 3 * part
    assert {socket.looks for socket in sockets} == {1}
    assert clock.now == pytest.approx(20)


def test_after_a_standstill_nobody_is_judged_at_once(clock: Clock) -> None:
    keepalive, socket = Keepalive(20), Socket()
    keepalive.add(socket)
    clock.advance(late=30)
    assert socket.looks == 0
    clock.advance()
    assert socket.looks == 1


def test_it_rests_when_nobody_is_there(clock: Clock) -> None:
    keepalive, socket = Keepalive(20), Socket()
    keepalive.discard(socket, keepalive.add(socket))
    clock.advance()
    assert clock.timers == []
    keepalive.add(socket)
    assert len(clock.timers) == 1


async def test_there_is_one_for_a_loop_and_a_length() -> None:
    loop = asyncio.get_running_loop()
    assert Keepalive.of(loop, 20) is Keepalive.of(loop, 20)
    assert Keepalive.of(loop, 20) is not Keepalive.of(loop, 30)
