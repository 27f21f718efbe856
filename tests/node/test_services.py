"""The services of the node for extensions: connections by number, and replies to a message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pytest
from asgiref.sync import async_to_sync

from rooms.compat.gowsev import Gowsev
from rooms.compat.roomer import Roomer
from rooms.extensions import Extension, MessageEvent, message
from rooms.hub.connection import Connection
from rooms.node.node import Node
from rooms.protocol.commands import Send
from rooms.protocol.compat_commands import CompatJoin, SendToApplication
from rooms.protocol.errors import BadRequest, ReservedEvent, RoomNotFound, UnknownConnection
from rooms.protocol.native import Native
from tests.node.clients import Client, Install, error_of
from tests.node.peers import Peer, fields, roomer

if TYPE_CHECKING:
    from rooms.models import Application


SetExtension = Callable[[type[Extension]], Awaitable[None]]


class Echo(Extension):
    """Receives raw frames, and records the hooks that run."""

    running: ClassVar[Echo]
    hooks: ClassVar[list[tuple[Any, ...]]]

    async def init(self) -> None:
        type(self).running = self
        type(self).hooks = []

    async def on_connect(self, event: Any) -> None:
        self.hooks.append(("connect", event.number))

    async def on_receive(self, event: Any) -> None:
        self.hooks.append(("receive", event.number, event.data))
        await self.write(event.number, event.data)

    async def on_disconnect(self, event: Any) -> None:
        self.hooks.append(("disconnect", event.number))


@pytest.fixture
def set_extension(chat: Application, install_extension: Install) -> SetExtension:
    """Give the application an extension."""

    async def set_extension(extension: type[Extension]) -> None:
        chat.extension = install_extension(extension)
        await chat.asave()

    return set_extension


@pytest.fixture
async def echo(set_extension: SetExtension) -> None:
    await set_extension(Echo)


# Connections by number -------------------------------------------------------------------------------


@pytest.mark.usefixtures("echo")
async def test_open_connections_are_numbered_from_one(node: Node) -> None:
    first, second = [await Peer.connected(node, Gowsev()) for _ in range(2)]
    assert (first.connection.number, second.connection.number) == (1, 2)
    assert Echo.running.connections == [1, 2]
    first.disconnect()
    assert Echo.running.connections == [2]
    third = await Peer.connected(node, Gowsev())
    assert third.connection.number == 3
    await Echo.running.close(2)
    assert Echo.running.connections == [3]


@pytest.mark.usefixtures("echo")
async def test_the_hooks_of_a_connection_run_in_order(node: Node) -> None:
    peer = await Peer.connected(node, Gowsev())
    await peer.send(b"one")
    await peer.send("two ä")
    peer.disconnect()
    await node.context.tasks.drain()
    assert Echo.hooks == [
        ("connect", 1),
        ("receive", 1, b"one"),
        ("receive", 1, "two ä".encode()),
        ("disconnect", 1),
    ]
    assert peer.received() == [b"one", "two ä".encode()]


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        (b"\xff\x00", b"\xff\x00"),
        (b"", b""),
        ("123", b"123"),
        ('"quoted"', b'"quoted"'),
        ('{ "a": 1 }', b'{ "a": 1 }'),
        ({"a": [1]}, b'{"a":[1]}'),
        (None, b"null"),
    ],
)
@pytest.mark.usefixtures("echo")
async def test_data_written_to_a_number_arrives_unchanged(node: Node, data: Any, frame: bytes) -> None:
    peer, other = [await Peer.connected(node, Gowsev()) for _ in range(2)]
    await Echo.running.write(1, data)
    assert (peer.received(), other.received()) == ([frame], [])


@pytest.mark.usefixtures("echo")
async def test_a_native_client_receives_a_direct_message_of_the_server(node: Node) -> None:
    ann = await Client.named(node, "ann")
    await Echo.running.write(1, {"hello": 1})
    (received,) = ann.received("message")
    assert (received["event"], received["data"], received["from"], received["to"]) == (
        "message",
        {"hello": 1},
        None,
        ["ann"],
    )
    assert received["room"] == "root"


@pytest.mark.usefixtures("echo")
async def test_a_client_without_login_receives_the_message_without_a_recipient(node: Node) -> None:
    anonymous = Client(node)
    await anonymous.connect()
    await Echo.running.write(1, "hello")
    (received,) = anonymous.received("message")
    assert (received["room"], received["data"], "to" in received) == ("root", "hello", False)


@pytest.mark.usefixtures("echo")
async def test_a_roomer_client_receives_the_data_in_the_root_room(node: Node) -> None:
    peer = await Peer.connected(node, Roomer())
    await Echo.running.write(1, b"\xff")
    assert [fields(frame) for frame in peer.received()] == [
        ["root", "message", peer.connection.id, "", b"\xff"]
    ]


@pytest.mark.usefixtures("echo")
async def test_an_unknown_number_is_an_error_without_effect_on_others(node: Node) -> None:
    peer, gone = [await Peer.connected(node, Gowsev()) for _ in range(2)]
    gone.disconnect()
    for number in (0, 2, 3, -1):
        with pytest.raises(UnknownConnection, match=f"No connection {number} of chat"):
            await Echo.running.write(number, b"hello")
        with pytest.raises(UnknownConnection):
            await Echo.running.close(number)
    await peer.send(b"still here")
    assert peer.received() == [b"still here"]


@pytest.mark.usefixtures("echo")
async def test_close_by_number_follows_the_data_that_was_written(node: Node) -> None:
    peer, other = [await Peer.connected(node, Gowsev()) for _ in range(2)]
    await Echo.running.write(1, b"good bye")
    await Echo.running.close(1)
    assert (peer.received(), peer.connection.close_code) == ([b"good bye"], 1000)
    assert other.connection.close_code is None
    with pytest.raises(UnknownConnection):
        await Echo.running.write(1, b"too late")


async def test_a_synchronous_handler_writes_and_closes_by_number(
    node: Node, set_extension: SetExtension
) -> None:
    class Threaded(Extension):
        def on_receive(self, event: Any) -> None:  # type: ignore[override]
            async_to_sync(self.write)(event.number, event.data + b"!")
            async_to_sync(self.close)(self.connections[0])

    await set_extension(Threaded)
    peer = await Peer.connected(node, Gowsev())
    await peer.send(b"hello")
    assert (peer.received(), peer.connection.close_code) == ([b"hello!"], 1000)


async def test_a_refused_connection_runs_neither_on_connect_nor_on_disconnect(
    node: Node, chat: Application, set_extension: SetExtension
) -> None:
    chat.entry = "users"
    await set_extension(Echo)
    peer = Peer(node, Gowsev())
    await peer.connect()
    assert peer.connection.close_code == 4501
    peer.disconnect()
    await node.context.tasks.drain()
    assert Echo.hooks == []


async def test_on_connect_precedes_on_disconnect_although_the_socket_is_gone_first(
    node: Node, set_extension: SetExtension
) -> None:
    await set_extension(Echo)
    application = await node.context.registry.application("chat")
    assert application is not None
    go_on = asyncio.Event()
    # ``on_connect`` has to wait for this handler.
    before = asyncio.ensure_future(application.runner.executor.run(go_on.wait))
    peer = Peer(node, Native())
    connecting = asyncio.ensure_future(peer.connect())
    await peer.wanted.wait()
    connecting.cancel()
    await asyncio.wait({connecting})
    peer.disconnect()
    go_on.set()
    await before
    await node.context.tasks.drain()
    assert Echo.hooks == [("connect", 1), ("disconnect", 1)]


# Replies -----------------------------------------------------------------------------------------------


class Answering(Extension):
    """``act`` handles the event ``do``; ``out`` has its results."""

    act: ClassVar[Any]
    out: ClassVar[list[Any]]
    count: ClassVar[int]

    @message("do")
    async def do(self, event: MessageEvent) -> None:
        type(self).count += 1
        event.reply({"done": True})
        self.out.append(await type(self).act(event))


@pytest.fixture
async def doing(set_extension: SetExtension, monkeypatch: pytest.MonkeyPatch) -> type[Answering]:
    """The extension of the application."""
    await set_extension(Answering)
    monkeypatch.setattr(Answering, "out", [], raising=False)
    monkeypatch.setattr(Answering, "count", 0, raising=False)
    return Answering


async def in_room(peer: Peer, room: str) -> None:
    await peer.send(roomer(room, "join", peer.connection.id, peer.connection.id.encode()))
    peer.received()


async def test_event_send_reaches_the_connection_of_the_sender_only(
    node: Node, doing: type[Answering]
) -> None:
    async def act(event: MessageEvent) -> Any:
        return [await event.send("hint", "warm"), await event.send("hint", b"\xff", room="elsewhere")]

    doing.act = staticmethod(act)
    ann, ben = [await Peer.connected(node, Roomer()) for _ in range(2)]
    for peer in (ann, ben):
        await in_room(peer, "lobby")
    ann.received()
    await ann.send(roomer("lobby", "do", payload=b"x"))
    received = [fields(frame) for frame in ann.received()]
    assert [(each[0], each[1], each[3], each[4]) for each in received] == [
        ("lobby", "hint", ann.connection.id, b"warm"),
        ("elsewhere", "hint", ann.connection.id, b"\xff"),
    ]
    assert ben.received() == []
    assert doing.out == [[True, True]]


async def test_event_send_skips_a_connection_that_is_slow_or_gone(
    node: Node, doing: type[Answering], monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[Any] = []

    async def act(event: MessageEvent) -> Any:
        for work in before:
            work()
        return await event.send("hint", "warm")

    doing.act = staticmethod(act)
    native = await Client.named(node, "ann", "lobby")
    await native.send("lobby", "x", event="do")
    assert [
        (received["event"], received["data"], received["to"]) for received in native.received("message")
    ] == [("hint", "warm", ["ann"])]
    gone = await Peer.connected(node, Roomer())
    await in_room(gone, "lobby")
    before.append(gone.disconnect)
    await gone.send(roomer("lobby", "do"))
    assert gone.received() == []
    slow = await Peer.connected(node, Roomer())
    await in_room(slow, "lobby")
    before[:] = [lambda: monkeypatch.setattr(Connection, "is_slow", lambda self: True)]
    await slow.send(roomer("lobby", "do"))
    assert slow.received() == []
    assert doing.out == [True, False, False]


async def test_send_to_room_reaches_all_members_but_the_sender(node: Node, doing: type[Answering]) -> None:
    async def act(event: MessageEvent) -> Any:
        return await event.send_to_room("do", event.data)

    doing.act = staticmethod(act)
    ann, ben = [await Client.named(node, name, "lobby") for name in ("ann", "ben")]
    carl = await Peer.connected(node, Roomer())
    await in_room(carl, "lobby")
    reply = await ann.send("lobby", {"a": 1}, event="do")
    assert reply == {"seq": None, "time": reply["time"], "done": True}
    # It is an ordinary message, for every protocol and in the history, and no handler runs again.
    (received,) = ben.received("message")
    assert (received["event"], received["data"], received["from"]["name"]) == ("do", {"a": 1}, "ann")
    assert received["seq"] == doing.out[0].seq == 1
    assert fields(carl.received()[-1])[1:] == ["do", "", "ann", b'{"a": 1}']
    assert ann.received("message") == []
    assert [each.value for each in await node.services.history("chat", "lobby", 10)] == [{"a": 1}]
    assert doing.count == 1


async def test_unchanged_data_is_forwarded_byte_for_byte(node: Node, doing: type[Answering]) -> None:
    async def act(event: MessageEvent) -> Any:
        await event.send_to_room("as it is", event.data)
        event.data["a"] += 1
        await event.send_to_room("changed", event.data)

    doing.act = staticmethod(act)
    ann, ben = [await Peer.connected(node, Roomer()) for _ in range(2)]
    for peer in (ann, ben):
        await in_room(peer, "lobby")
    payload = b'{ "a" : 1.50, "b": "\\u00e9" }'
    await ann.send(roomer("lobby", "do", payload=payload))
    assert [fields(frame)[4] for frame in ben.received()] == [payload, '{"a":2.5,"b":"é"}'.encode()]


async def test_send_to_room_reaches_another_existing_room(
    node: Node, doing: type[Answering], caplog: pytest.LogCaptureFixture
) -> None:
    async def act(event: MessageEvent) -> Any:
        return await event.send_to_room("copied", "x", room=event.data)

    doing.act = staticmethod(act)
    ann, ben = await Client.named(node, "ann", "lobby"), await Client.named(node, "ben", "cellar")
    await ann.send("lobby", "cellar", event="do")
    assert ben.messages() == ["x"]
    await error_of(RoomNotFound, ann.send("lobby", "nowhere", event="do"))
    # A handler of a message without a room has to name one.
    with caplog.at_level(logging.ERROR):
        command = SendToApplication(data=msgspec.Raw(b"null"), event="do")
        doing.act = staticmethod(lambda event: event.send_to_room("copied", "x"))
        with pytest.raises(Exception, match="Something went wrong"):
            await ann.request(command)
    assert "Expected the argument room" in caplog.text


async def test_send_to_user_reaches_a_user_in_any_room(node: Node, doing: type[Answering]) -> None:
    async def act(event: MessageEvent) -> Any:
        return await event.send_to_user(event.data, "private", {"a": 1})

    doing.act = staticmethod(act)
    ann, ben, carl = [await Peer.connected(node, Roomer()) for _ in range(3)]
    for peer in (ann, ben, carl):
        await in_room(peer, "lobby")
    await ben.send(roomer("lobby", "leave"))
    for peer in (ann, ben, carl):
        peer.received()
    await ann.send(roomer("lobby", "do", payload=ben.connection.id.encode()))
    (received,) = ben.received()
    assert fields(received) == ["root", "private", ben.connection.id, ann.connection.id, b'{"a":1}']
    assert (ann.received(), carl.received()) == ([], [])
    await ann.send(roomer("lobby", "do", payload=b"unknown"))
    assert (ann.received(), ben.received(), carl.received()) == ([], [], [])


async def test_the_reply_precedes_the_events_that_the_sender_receives(
    node: Node, doing: type[Answering]
) -> None:
    async def act(event: MessageEvent) -> Any:
        assert event.room is not None
        await event.room.publish("first", 1)
        await event.send_to_room("second", 2)
        await event.send_to_user("ann", "third", 3)

    doing.act = staticmethod(act)
    ann = await Client.named(node, "ann", "lobby")
    again = await Peer.connected(node, Roomer())
    await in_room(again, "lobby")
    ann.read()
    await ann.send("lobby", "x", event="do")
    assert [frame.get("event", frame["type"]) for frame in ann.frames[-3:]] == ["reply", "first", "third"]
    assert [fields(frame)[1] for frame in again.received()] == ["first", "second"]


async def test_the_reply_precedes_an_event_to_the_sender_only(
    node: Node, set_extension: SetExtension
) -> None:
    class Hinting(Extension):
        @message("message")
        async def take(self, event: MessageEvent) -> None:
            assert await event.send("hint", "warm")

    await set_extension(Hinting)
    peer = await Peer.connected(node, Gowsev())
    await peer.send("subscribe:lobby")
    await peer.send("publish:lobby:hello")
    assert peer.received() == [b"OK", b"OK", b"warm"]


@pytest.mark.parametrize(
    ("error", "send"),
    [
        (ReservedEvent, lambda event: event.send_to_room("joined", 1)),
        (ReservedEvent, lambda event: event.send("joined", 1)),
        (ReservedEvent, lambda event: event.send_to_user("ann", "reply", 1)),
        (BadRequest, lambda event: event.send_to_room("x" * 65, 1)),
        (BadRequest, lambda event: event.send("x" * 65, 1)),
        (BadRequest, lambda event: event.send("\0", 1)),
        (BadRequest, lambda event: event.send_to_user("ann", "x" * 65, 1)),
    ],
)
async def test_forwarded_events_must_have_an_allowed_name(
    node: Node, doing: type[Answering], error: type[Exception], send: Any
) -> None:
    doing.act = staticmethod(send)
    ann = await Client.named(node, "ann", "lobby")
    with pytest.raises(error):
        await ann.send("lobby", "x", event="do")


async def test_a_synchronous_handler_sends_from_its_thread(node: Node, set_extension: SetExtension) -> None:
    class Plain(Extension):
        @message("do")
        def do(self, event: MessageEvent) -> None:
            assert async_to_sync(event.send)("hint", 1)
            async_to_sync(event.send_to_room)("copied", 2)
            async_to_sync(event.send_to_user)(event.user.name, "private", 3)

    await set_extension(Plain)
    ann, ben = [await Peer.connected(node, Roomer()) for _ in range(2)]
    for peer in (ann, ben):
        await in_room(peer, "lobby")
    ann.received()
    await ann.send(roomer("lobby", "do"))
    assert [fields(frame)[1] for frame in ann.received()] == ["hint", "private"]
    assert [fields(frame)[1] for frame in ben.received()] == ["copied"]


# Claims ------------------------------------------------------------------------------------------------


async def test_every_event_of_a_connection_has_its_claims(node: Node, set_extension: SetExtension) -> None:
    seen: dict[str, Any] = {}

    class Noting(Extension):
        async def on_connect(self, event: Any) -> None:
            seen["connect"] = event.claims

        async def on_login(self, event: Any) -> None:
            seen["login"] = event.claims

        async def on_join(self, event: Any) -> None:
            seen["join"] = event.claims

        async def on_message(self, event: Any) -> None:
            seen["message"] = event.claims

        async def on_before_leave(self, event: Any) -> None:
            seen["leaving"] = event.claims

        async def on_leave(self, event: Any) -> None:
            seen["leave"] = event.claims

        async def on_disconnect(self, event: Any) -> None:
            seen["disconnect"] = event.claims

        @message("do")
        async def do(self, event: MessageEvent) -> None:
            seen["handler"] = event.claims

    await set_extension(Noting)
    peer = Peer(node, Roomer())
    peer.connection.claims = {"key": "17"}
    await peer.connect()
    await node.join.join(peer.connection, CompatJoin(room="lobby"))
    for event in ("do", "other"):
        await node.messages.send(peer.connection, Send(room="lobby", event=event, data=msgspec.Raw(b"1")))
    await peer.send(roomer("lobby", "leave"))
    peer.disconnect()
    await node.context.tasks.drain()
    assert set(seen) == {
        *("connect", "login", "join", "message", "handler", "leaving", "leave", "disconnect"),
    }
    assert all(claims == {"key": "17"} for claims in seen.values())
