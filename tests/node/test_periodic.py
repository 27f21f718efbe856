"""The periodic check of a connection, at times that a test chooses."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rooms.conf import Settings
from rooms.hub.connection import Connection
from rooms.node import periodic
from rooms.node.context import BackgroundTasks, DelayedActions
from rooms.node.periodic import CLOSE_SECONDS, PeriodicTasks, _run_logged
from rooms.protocol.errors import CloseCode, Unavailable
from rooms.protocol.native import Native

SETTINGS = Settings(ping_interval=25, pong_timeout=10, login_timeout=10, write_timeout=10)
START = 1000.0


class Watch:
    """The periodic tasks with one connection, whose last frame came at the start."""

    def __init__(self) -> None:
        self.connection = Connection("c", Native(), application="chat")
        self.connection.last_seen = START
        self.aborted: list[Connection] = []
        self.delayed, self.tasks = DelayedActions(), BackgroundTasks()
        context: Any = SimpleNamespace(settings=SETTINGS, delayed=self.delayed, tasks=self.tasks)
        self.periodic = PeriodicTasks(context, [self.connection], self.aborted.append)

    def after(self, seconds: float) -> list[bytes]:
        """Check this long after the start. Returns what the connection is sent."""
        self.periodic._check(self.connection, START + seconds)
        return self.connection.pop_all()


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_silent_client_is_pinged_once(watch: Watch) -> None:
    assert watch.after(25) == []
    assert watch.after(25.5) == [b'{"type":"ping"}']
    assert watch.after(30) == []
    assert watch.connection.close_code is None


def test_a_client_that_does_not_answer_the_ping_is_closed(watch: Watch) -> None:
    watch.after(26)
    assert watch.after(35) == []
    assert b'"code":4002' in watch.after(35.5)[0]
    assert watch.connection.close_code is CloseCode.HEARTBEAT_TIMEOUT


def test_any_frame_counts_as_an_answer(watch: Watch) -> None:
    watch.after(26)
    watch.connection.last_seen, watch.connection.ping_sent = START + 34, False
    assert watch.after(58) == []
    assert watch.after(60) == [b'{"type":"ping"}']
    assert watch.connection.close_code is None


def test_a_connection_with_a_command_or_message_under_way_is_not_silent(watch: Watch) -> None:
    watch.connection.busy = True
    assert watch.after(100) == []
    watch.connection.busy = False
    # Its frames are not read until these are acknowledged.
    watch.connection.in_flight = 1
    assert watch.after(200) == []
    watch.connection.in_flight = 0
    assert watch.after(220) == []
    assert watch.after(226) == [b'{"type":"ping"}']


def test_a_client_that_does_not_log_in_is_closed(watch: Watch) -> None:
    watch.connection.waiting_for_login = START
    assert watch.after(10) == []
    assert b'"code":4502' in watch.after(10.5)[0]


def test_a_socket_without_an_application_has_a_longer_login_timeout(watch: Watch) -> None:
    watch.connection.application = ""
    watch.connection.last_seen = START + 299
    watch.connection.waiting_for_login = START
    assert watch.after(300) == []
    assert b'"code":4502' in watch.after(301)[0]


def test_a_login_under_way_stops_the_login_timeout(watch: Watch) -> None:
    watch.connection.waiting_for_login = START
    watch.connection.busy = True
    assert watch.after(11) == []


def test_a_client_that_logged_in_is_not_closed_by_the_login_timeout(watch: Watch) -> None:
    watch.connection.waiting_for_login = None
    watch.after(20)
    assert watch.connection.close_code is None


def test_a_write_above_the_timeout_closes_a_slow_consumer(watch: Watch) -> None:
    watch.connection.push(b"queued")
    watch.connection.writing_since = START
    watch.periodic._check(watch.connection, START + 10)
    assert watch.connection.close_code is None
    assert b'"code":4001' in watch.after(10.5)[0]
    assert watch.aborted == [watch.connection]


def test_a_write_above_the_timeout_closes_in_spite_of_a_command_under_way(watch: Watch) -> None:
    watch.connection.busy, watch.connection.writing_since = True, START
    watch.after(11)
    assert watch.connection.close_code is CloseCode.SLOW_CONSUMER


def test_a_connection_that_cannot_be_closed_is_aborted(watch: Watch) -> None:
    watch.connection.close(CloseCode.KICKED, "Kicked.")
    watch.after(100)
    assert watch.aborted == []
    watch.connection.writing_since = START + 100
    watch.after(100 + CLOSE_SECONDS)
    assert watch.aborted == []
    watch.after(100.5 + CLOSE_SECONDS)
    assert watch.aborted == [watch.connection]
    assert watch.connection.close_code is CloseCode.KICKED


async def test_a_periodic_task_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(error: Exception) -> None:
        raise error

    await _run_logged(lambda: fails(Unavailable("The layer is down.")))
    assert "A periodic task was postponed: The layer is down." in caplog.text
    await _run_logged(lambda: fails(ValueError("unexpected")))
    assert "unexpected" in caplog.text


async def test_each_tick_checks_all_connections_and_runs_what_is_due(
    monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    monkeypatch.setattr(periodic, "TICK_SECONDS", 0)
    # By the real clock: far above the timeout.
    watch.connection.last_seen = -1e9
    happened = [asyncio.Event(), asyncio.Event()]

    async def regular() -> None:
        happened[0].set()

    async def delayed() -> None:
        happened[1].set()

    watch.periodic.every(0, regular)
    watch.delayed.add(0, delayed)
    running = asyncio.create_task(watch.periodic.run())
    async with asyncio.timeout(60):
        await asyncio.gather(*(each.wait() for each in happened))
    running.cancel()
    await asyncio.wait({running})
    await watch.tasks.drain()
    assert watch.connection.close_code is CloseCode.HEARTBEAT_TIMEOUT
