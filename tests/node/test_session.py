"""A session serves one socket: the order of its replies, and sockets that cannot be written to."""

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
    """A socket whose every write fails; it stays open until it is closed."""

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


async def test_a_frame_that_the_server_refuses_closes_the_connection(
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
    """A socket that sends some commands and ends."""

    def __init__(self, *commands: dict[str, Any]) -> None:
        self.frames = [json.dumps(each) for each in commands]
        self.received: list[dict[str, Any]] = []

    async def next(self) -> str | bytes | None:
        return self.frames.pop(0) if self.frames else None

    async def send(self, frame: bytes, *, binary: bool) -> None:
        self.received += [json.loads(line) for line in frame.split(b"\n")]

    async def close(self, code: int, reason: str) -> None:
        pass


@pytest.mark.parametrize("last", ["leave", "message", "ping", "nonsense", None])
async def test_replies_come_in_the_order_of_the_commands(
    node: Node, monkeypatch: pytest.MonkeyPatch, last: str | None
) -> None:
    """A user leaves after their last message is broadcast."""
    application = await Application.objects.aget()
    await Room.objects.acreate(application=application, name="lobby", history="database")
    bob = await Client.named(node, "bob", "lobby")
    messages = [{"type": "message", "room": "lobby", "id": n, "data": n} for n in range(5)]
    room = "lobby" if last == "leave" else "nowhere"
    final = [{"type": last, "room": room, "id": 5, "data": 5}] if last else []
    socket = Script({"type": "login", "name": "ann"}, {"type": "join", "room": "lobby"}, *messages, *final)
    connection = make_connection(node, "c", Native(), application="chat", address="")
    disconnect = node.disconnect

    def disconnect_when_idle(connection: Connection) -> None:
        assert connection.in_flight == 0
        disconnect(connection)

    monkeypatch.setattr(node, "disconnect", disconnect_when_idle)
    await Session(node, commands_of(node), connection, socket).run(None)
    await node.context.tasks.drain()
    await bob.until(lambda: len(bob.messages()) == 5)
    events = bob.received("message", "left")
    assert [frame.get("data") for frame in events] == [0, 1, 2, 3, 4, *([None] if last == "leave" else [])]
    # The end of the socket left these unwritten.
    for frame in connection.pop_all():
        await socket.send(frame, binary=False)
    assert [frame["id"] for frame in socket.received if "id" in frame] == list(range(5 + len(final)))


async def test_refused_commands_are_answered_after_the_earlier_ones(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "TokenBucket", partial(TokenBucket, clock=lambda: 0.0))
    application = await Application.objects.aget()
    application.request_rate, application.request_burst = 1, 5
    await application.asave()
    await Room.objects.acreate(application=application, name="lobby", history="database")
    messages = [{"type": "message", "room": "lobby", "id": n, "data": n} for n in range(9)]
    socket = Script({"type": "login", "name": "ann"}, {"type": "join", "room": "lobby"}, *messages)
    connection = make_connection(node, "c", Native(), application="chat", address="")
    await Session(node, commands_of(node), connection, socket).run(None)
    for frame in connection.pop_all():
        await socket.send(frame, binary=False)
    received = [(frame["type"], frame.get("id")) for frame in socket.received]
    replies = [("reply", 0), ("reply", 1), ("reply", 2), ("error", 3), ("error", 4), ("error", 5)]
    assert [each for each in received if each[1] is not None] == replies
    assert received[-1] == ("closing", None)


async def test_a_refusal_of_state_is_sent_although_the_next_message_is_already_there(
    node: Node,
) -> None:
    await Application.objects.aupdate(rooms_on_demand=True, history="database")
    socket, fields = Script({"status": {"value": 1}}), {"status": {"value": 3}, "funcKey": "page"}
    for params, is_state in (("x" * 20_000, True), ("x", False)):
        socket.frames.append(json.dumps({**fields, "funcParams": [params], "stateMessage": is_state}))
    connection = make_connection(node, "c", Rtbroadcaster(), application="chat", address="")
    await Session(node, commands_of(node), connection, socket).run(None)
    for frame in connection.pop_all():
        await socket.send(frame, binary=False)
    connected, refusal = (each["status"]["text"] for each in socket.received)
    assert (connected, "Expected at most 16384 bytes of state" in refusal) == ("connected", True)


class Stuck:
    """A frame writer whose client reads nothing."""

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


async def test_a_client_that_reads_nothing_is_sent_the_reason_of_its_close(node: Node) -> None:
    socket, writer = Broken(ConnectionError("gone")), Stuck()
    connection = make_connection(node, "c", Native(), application="chat", address="")

    async def served() -> None:
        await Session(node, commands_of(node), connection, socket, writer).run(None)
        # As the server does when the ASGI application has returned.
        writer.close(1000, "")

    serving = asyncio.create_task(served())
    async with asyncio.timeout(PATIENCE):
        while connection.writing_since is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        # As the periodic check does: at once, before the scheduler writes.
        connection.close(CloseCode.SLOW_CONSUMER, "Nothing was read for too long.", discard=True)
        node._abort(connection)
        await serving
    assert writer.closed[0] == CloseCode.SLOW_CONSUMER
    assert b'"closing"' in writer.written[-1]


async def test_a_socket_that_is_gone_is_not_logged(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    socket = Broken(ConnectionError("gone"))
    connection = make_connection(node, "c", Native(), application="chat", address="")
    with caplog.at_level(logging.INFO, "rooms.node.session"):
        session = Session(node, commands_of(node), connection, socket)
        serving = asyncio.create_task(session.run(None))
        async with asyncio.timeout(PATIENCE):
            await socket.tried.wait()
            socket.closed.set_result(1006)
            await serving
    assert caplog.text == ""
    assert connection.close_code is None


async def test_the_django_user_of_the_handshake_is_not_kept_while_the_socket_is_open(node: Node) -> None:
    class Account:
        """Stands for the Django user of a handshake, which may be large."""

        is_authenticated = False

    reading, user = asyncio.Event(), Account()
    reference = weakref.ref(user)

    class Quiet(Script):
        async def next(self) -> str | bytes | None:
            reading.set()
            await asyncio.Event().wait()
            return None

    connection = make_connection(node, "c", Native(), application="chat", address="")
    serving = asyncio.create_task(Session(node, commands_of(node), connection, Quiet()).run(user))
    del user
    async with asyncio.timeout(PATIENCE):
        await reading.wait()
    assert reference() is None
    serving.cancel()
    await asyncio.wait({serving})
