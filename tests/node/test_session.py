"""Serving a socket: what is written, and what becomes of a socket that cannot be written to."""

from __future__ import annotations

import asyncio
import json
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from rooms.compat.rtbroadcaster import Rtbroadcaster
from rooms.concurrency.rate_limits import TokenBucket
from rooms.consumers import commands_of
from rooms.hub.connection import Connection
from rooms.models import Application, Room
from rooms.node import throttle
from rooms.node.node import Node
from rooms.node.session import Session, make_connection
from rooms.protocol.errors import CloseCode
from rooms.protocol.native import Native
from tests.node.clients import PATIENCE, Client

pytestmark = pytest.mark.django_db(transaction=True)


class Broken:
    """A socket that takes no frame, and stays open until it is closed."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.tried = asyncio.Event()

    async def next(self) -> str | bytes | None:
        await asyncio.wait({self.closed})
        return None

    async def send(self, frame: bytes, *, binary: bool) -> None:
        self.tried.set()
        raise self.error

    async def close(self, code: int, reason: str) -> None:
        self.closed.set_result(code)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    await Application.objects.acreate(name="chat")
    node = await Node.get_or_start()
    yield node
    await node.stop()


async def test_a_frame_that_the_server_in_front_will_not_send_ends_the_connection(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    socket = Broken(ValueError("payload too large"))
    connection = make_connection(node, "c", Native(), application="chat", address="")
    async with asyncio.timeout(PATIENCE):
        with caplog.at_level(logging.WARNING, "rooms.node.session"):
            await Session(node, commands_of(node), connection, socket).run(None)
    assert socket.closed.result() == connection.close_code == CloseCode.INTERNAL_ERROR
    assert "payload too large" in caplog.text
    assert node.connections == {}


class Script:
    """A socket that says so much and ends."""

    def __init__(self, *requests: dict[str, Any]) -> None:
        self.frames = [json.dumps(each) for each in requests]
        self.heard: list[dict[str, Any]] = []

    async def next(self) -> str | bytes | None:
        return self.frames.pop(0) if self.frames else None

    async def send(self, frame: bytes, *, binary: bool) -> None:
        self.heard += [json.loads(line) for line in frame.split(b"\n")]

    async def close(self, code: int, reason: str) -> None:
        pass


@pytest.mark.parametrize("last", ["leave", "message", "ping", "nonsense", None])
async def test_answers_come_in_the_order_of_what_was_asked(
    node: Node, monkeypatch: pytest.MonkeyPatch, last: str | None
) -> None:
    """And nobody goes before what they said is told."""
    application = await Application.objects.aget()
    await Room.objects.acreate(application=application, name="lobby", history="database")
    bob = await Client.named(node, "bob", "lobby")
    said = [{"type": "message", "room": "lobby", "id": n, "data": n} for n in range(5)]
    room = "lobby" if last == "leave" else "nowhere"
    asked = [{"type": last, "room": room, "id": 5, "data": 5}] if last else []
    socket = Script({"type": "login", "name": "ann"}, {"type": "join", "room": "lobby"}, *said, *asked)
    connection = make_connection(node, "c", Native(), application="chat", address="")
    disconnect = node.disconnect

    def last_of_all(connection: Connection) -> None:
        assert connection.in_flight == 0
        disconnect(connection)

    monkeypatch.setattr(node, "disconnect", last_of_all)
    await Session(node, commands_of(node), connection, socket).run(None)
    await node.context.tasks.drain()
    await bob.until(lambda: len(bob.messages()) == 5)
    told = bob.told("message", "left")
    assert [frame.get("data") for frame in told] == [0, 1, 2, 3, 4, *([None] if last == "leave" else [])]
    # What the end of the socket left unwritten.
    for frame in connection.pop_all():
        await socket.send(frame, binary=False)
    assert [frame["id"] for frame in socket.heard if "id" in frame] == list(range(5 + len(asked)))


async def test_who_asks_too_much_is_first_answered_what_they_have_said(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "TokenBucket", partial(TokenBucket, clock=lambda: 0.0))
    application = await Application.objects.aget()
    application.request_rate, application.request_burst = 1, 5
    await application.asave()
    await Room.objects.acreate(application=application, name="lobby", history="database")
    said = [{"type": "message", "room": "lobby", "id": n, "data": n} for n in range(9)]
    socket = Script({"type": "login", "name": "ann"}, {"type": "join", "room": "lobby"}, *said)
    connection = make_connection(node, "c", Native(), application="chat", address="")
    await Session(node, commands_of(node), connection, socket).run(None)
    for frame in connection.pop_all():
        await socket.send(frame, binary=False)
    told = [(frame["type"], frame.get("id")) for frame in socket.heard]
    answers = [("reply", 0), ("reply", 1), ("reply", 2), ("error", 3), ("error", 4), ("error", 5)]
    assert [each for each in told if each[1] is not None] == answers
    assert told[-1] == ("closing", None)


async def test_why_state_is_not_kept_is_told_also_when_the_next_message_is_there_already(
    node: Node,
) -> None:
    await Application.objects.aupdate(rooms_on_demand=True, history="database")
    socket, words = Script({"status": {"value": 1}}), {"status": {"value": 3}, "funcKey": "page"}
    for params, is_state in (("x" * 20_000, True), ("x", False)):
        socket.frames.append(json.dumps({**words, "funcParams": [params], "stateMessage": is_state}))
    connection = make_connection(node, "c", Rtbroadcaster(), application="chat", address="")
    await Session(node, commands_of(node), connection, socket).run(None)
    for frame in connection.pop_all():
        await socket.send(frame, binary=False)
    connected, refusal = (each["status"]["text"] for each in socket.heard)
    assert (connected, "State has at most 16384 bytes" in refusal) == ("connected", True)


class Stuck:
    """A wire whose client reads nothing."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed: list[int] = []

    def write(self, data: bytes) -> bool:
        self.written.append(data)
        return False

    def on_drained(self, call: Callable[[], None]) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        self.closed.append(code)


async def test_one_who_reads_nothing_is_told_why_it_was_ended(node: Node) -> None:
    socket, wire = Broken(ConnectionError("gone")), Stuck()
    connection = make_connection(node, "c", Native(), application="chat", address="")

    async def served() -> None:
        await Session(node, commands_of(node), connection, socket, wire).run(None)
        # As the server does when the application has returned.
        wire.close(1000, "")

    serving = asyncio.create_task(served())
    async with asyncio.timeout(PATIENCE):
        while connection.writing_since is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        # As the heartbeat does: at once, before the flusher's turn.
        connection.close(CloseCode.SLOW_CONSUMER, "Nothing was read for too long.", discard=True)
        node._abort(connection)
        await serving
    assert wire.closed[0] == CloseCode.SLOW_CONSUMER
    assert b'"closing"' in wire.written[-1]


async def test_a_socket_that_is_gone_is_nobodys_fault(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    socket = Broken(ConnectionError("gone"))
    connection = make_connection(node, "c", Native(), application="chat", address="")
    with caplog.at_level(logging.INFO, "rooms.node.session"):
        service = Session(node, commands_of(node), connection, socket)
        serving = asyncio.create_task(service.run(None))
        async with asyncio.timeout(PATIENCE):
            await socket.tried.wait()
            socket.closed.set_result(1006)
            await serving
    assert caplog.text == ""
    assert connection.close_code is None


async def test_who_shook_hands_is_not_kept_for_as_long_as_the_socket_is_open(node: Node) -> None:
    class Account:
        """What Django knows of a user, which may be much."""

        is_authenticated = False

    asked, user = asyncio.Event(), Account()
    kept = weakref.ref(user)

    class Quiet(Script):
        async def next(self) -> str | bytes | None:
            asked.set()
            await asyncio.Event().wait()
            return None

    connection = make_connection(node, "c", Native(), application="chat", address="")
    serving = asyncio.create_task(Session(node, commands_of(node), connection, Quiet()).run(user))
    del user
    async with asyncio.timeout(PATIENCE):
        await asked.wait()
    assert kept() is None
    serving.cancel()
    await asyncio.wait({serving})
