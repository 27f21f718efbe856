"""What the heartbeat decides about a connection, at times that a test chooses."""

from __future__ import annotations

import asyncio

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
    """A heartbeat over one connection that was last heard at the start."""

    def __init__(self) -> None:
        self.connection = Connection("c", Native(), application="chat")
        self.connection.last_seen = START
        self.aborted: list[Connection] = []
        self.heartbeat = PeriodicTasks(
            SETTINGS, [self.connection], DelayedActions(), BackgroundTasks(), self.aborted.append
        )

    def after(self, seconds: float) -> list[bytes]:
        """Look so long after the start; what the connection is sent."""
        self.heartbeat._look_at(self.connection, START + seconds)
        return self.connection.pop_all()


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_who_is_silent_is_asked_once(watch: Watch) -> None:
    assert watch.after(25) == []
    assert watch.after(25.5) == [b'{"type":"ping"}']
    assert watch.after(30) == []
    assert watch.connection.close_code is None


def test_who_does_not_answer_is_closed(watch: Watch) -> None:
    watch.after(26)
    assert watch.after(35) == []
    assert b'"code":4002' in watch.after(35.5)[0]
    assert watch.connection.close_code is CloseCode.HEARTBEAT_TIMEOUT


def test_any_frame_is_a_sign_of_life(watch: Watch) -> None:
    watch.after(26)
    watch.connection.last_seen, watch.connection.ping_sent = START + 34, False
    assert watch.after(58) == []
    assert watch.after(60) == [b'{"type":"ping"}']
    assert watch.connection.close_code is None


def test_its_own_long_request_is_no_silence(watch: Watch) -> None:
    watch.connection.busy = True
    assert watch.after(100) == []
    watch.connection.busy = False
    # It waits to be read until these are answered.
    watch.connection.in_flight = 1
    assert watch.after(200) == []
    watch.connection.in_flight = 0
    assert watch.after(220) == []
    assert watch.after(226) == [b'{"type":"ping"}']


def test_who_does_not_log_in_is_closed(watch: Watch) -> None:
    watch.connection.waiting_for_login = START
    assert watch.after(10) == []
    assert b'"code":4502' in watch.after(10.5)[0]


def test_a_socket_that_is_in_no_application_yet_has_longer(watch: Watch) -> None:
    watch.connection.application = ""
    watch.connection.last_seen = START + 299
    watch.connection.waiting_for_login = START
    assert watch.after(300) == []
    assert b'"code":4502' in watch.after(301)[0]


def test_whose_login_is_being_carried_out_is_in_time(watch: Watch) -> None:
    watch.connection.waiting_for_login = START
    watch.connection.busy = True
    assert watch.after(11) == []


def test_who_logged_in_is_not(watch: Watch) -> None:
    watch.connection.waiting_for_login = None
    watch.after(20)
    assert watch.connection.close_code is None


def test_a_write_that_does_not_end_is_a_slow_consumer(watch: Watch) -> None:
    watch.connection.push(b"queued")
    watch.connection.writing_since = START
    watch.heartbeat._look_at(watch.connection, START + 10)
    assert watch.connection.close_code is None
    assert b'"code":4001' in watch.after(10.5)[0]
    assert watch.aborted == [watch.connection]


def test_a_write_that_does_not_end_matters_more_than_a_request_under_way(watch: Watch) -> None:
    watch.connection.busy, watch.connection.writing_since = True, START
    watch.after(11)
    assert watch.connection.close_code is CloseCode.SLOW_CONSUMER


def test_one_who_does_not_hear_the_last_word_is_ended(watch: Watch) -> None:
    watch.connection.close(CloseCode.KICKED, "Out.")
    watch.after(100)
    assert watch.aborted == []
    watch.connection.writing_since = START + 100
    watch.after(100 + CLOSE_SECONDS)
    assert watch.aborted == []
    watch.after(100.5 + CLOSE_SECONDS)
    assert watch.aborted == [watch.connection]
    assert watch.connection.close_code is CloseCode.KICKED


async def test_what_is_done_regularly_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(error: Exception) -> None:
        raise error

    await _run_logged(lambda: fails(Unavailable("The layer is down.")))
    assert "Put off: The layer is down." in caplog.text
    await _run_logged(lambda: fails(ValueError("unforeseen")))
    assert "unforeseen" in caplog.text


async def test_each_tick_looks_at_everybody_and_does_what_is_due(
    monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    monkeypatch.setattr(periodic, "TICK_SECONDS", 0)
    # Long ago, by the real clock: silent for too long.
    watch.connection.last_seen = -1e9
    happened = [asyncio.Event(), asyncio.Event()]

    async def regular() -> None:
        happened[0].set()

    async def departure() -> None:
        happened[1].set()

    watch.heartbeat.every(0, regular)
    watch.heartbeat._departures.add(0, departure)
    running = asyncio.create_task(watch.heartbeat.run())
    async with asyncio.timeout(20):
        await asyncio.gather(*(each.wait() for each in happened))
    running.cancel()
    await asyncio.wait({running})
    await watch.heartbeat._tasks.settle()
    assert watch.connection.close_code is CloseCode.HEARTBEAT_TIMEOUT
