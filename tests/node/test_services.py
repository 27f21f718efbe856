"""What extensions can do: connections by their numbers, and answers to a message."""

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
from tests.node.clients import Client, Install, refused
from tests.node.peers import Peer, fields, roomer

if TYPE_CHECKING:
    from rooms.models import Application


Put = Callable[[type[Extension]], Awaitable[None]]


class Echo(Extension):
    """Takes frames as they come, and notes what happens."""

    begun: ClassVar[Echo]
    told: ClassVar[list[tuple[Any, ...]]]

    async def init(self) -> None:
        type(self).begun = self
        type(self).told = []

    async def on_connect(self, event: Any) -> None:
        self.told.append(("connect", event.number))

    async def on_receive(self, event: Any) -> None:
        self.told.append(("receive", event.number, event.data))
        await self.write(event.number, event.data)

    async def on_disconnect(self, event: Any) -> None:
        self.told.append(("disconnect", event.number))


@pytest.fixture
def extended(chat: Application, installed: Install) -> Put:
    """Puts an extension on the application."""

    async def put(extension: type[Extension]) -> None:
        chat.extension = installed(extension)
        await chat.asave()

    return put


@pytest.fixture
async def echo(extended: Put) -> None:
    await extended(Echo)


# Connections by number -------------------------------------------------------------------------------


@pytest.mark.usefixtures("echo")
async def test_connections_have_numbers_from_one_as_long_as_they_are_open(node: Node) -> None:
    first, second = [await Peer.connected(node, Gowsev()) for _ in range(2)]
    assert (first.connection.number, second.connection.number) == (1, 2)
    assert Echo.begun.connections == [1, 2]
    first.disconnect()
    assert Echo.begun.connections == [2]
    third = await Peer.connected(node, Gowsev())
    assert third.connection.number == 3
    await Echo.begun.close(2)
    assert Echo.begun.connections == [3]


@pytest.mark.usefixtures("echo")
async def test_a_connection_comes_speaks_and_goes_in_this_order(node: Node) -> None:
    peer = await Peer.connected(node, Gowsev())
    await peer.say(b"one")
    await peer.say("zwei ä")
    peer.disconnect()
    await node.context.tasks.drain()
    assert Echo.told == [
        ("connect", 1),
        ("receive", 1, b"one"),
        ("receive", 1, "zwei ä".encode()),
        ("disconnect", 1),
    ]
    assert peer.heard() == [b"one", "zwei ä".encode()]


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
async def test_what_is_written_to_a_number_comes_as_it_is(node: Node, data: Any, frame: bytes) -> None:
    peer, other = [await Peer.connected(node, Gowsev()) for _ in range(2)]
    await Echo.begun.write(1, data)
    assert (peer.heard(), other.heard()) == ([frame], [])


@pytest.mark.usefixtures("echo")
async def test_a_native_client_is_written_to_by_number_as_by_the_server(node: Node) -> None:
    ann = await Client.named(node, "ann")
    await Echo.begun.write(1, {"hello": 1})
    (told,) = ann.told("message")
    assert (told["event"], told["data"], told["from"], told["to"]) == ("message", {"hello": 1}, None, ["ann"])
    assert told["room"] == "root"


@pytest.mark.usefixtures("echo")
async def test_who_has_not_logged_in_is_written_to_without_a_name(node: Node) -> None:
    somebody = Client(node)
    await somebody.connect()
    await Echo.begun.write(1, "hello")
    (told,) = somebody.told("message")
    assert (told["room"], told["data"], "to" in told) == ("root", "hello", False)


@pytest.mark.usefixtures("echo")
async def test_a_client_of_roomer_hears_in_root_what_is_written_to_it(node: Node) -> None:
    peer = await Peer.connected(node, Roomer())
    await Echo.begun.write(1, b"\xff")
    assert [fields(frame) for frame in peer.heard()] == [["root", "message", peer.connection.id, "", b"\xff"]]


@pytest.mark.usefixtures("echo")
async def test_an_unknown_number_is_an_error_and_harms_nobody(node: Node) -> None:
    peer, gone = [await Peer.connected(node, Gowsev()) for _ in range(2)]
    gone.disconnect()
    for number in (0, 2, 3, -1):
        with pytest.raises(UnknownConnection, match=f"No connection {number} of chat"):
            await Echo.begun.write(number, b"hello")
        with pytest.raises(UnknownConnection):
            await Echo.begun.close(number)
    await peer.say(b"still here")
    assert peer.heard() == [b"still here"]


@pytest.mark.usefixtures("echo")
async def test_a_connection_is_closed_by_its_number_after_what_was_written(node: Node) -> None:
    peer, other = [await Peer.connected(node, Gowsev()) for _ in range(2)]
    await Echo.begun.write(1, b"good bye")
    await Echo.begun.close(1)
    assert (peer.heard(), peer.connection.close_code) == ([b"good bye"], 1000)
    assert other.connection.close_code is None
    with pytest.raises(UnknownConnection):
        await Echo.begun.write(1, b"too late")


async def test_numbers_work_in_a_thread(node: Node, extended: Put) -> None:
    class Threaded(Extension):
        def on_receive(self, event: Any) -> None:  # type: ignore[override]
            async_to_sync(self.write)(event.number, event.data + b"!")
            async_to_sync(self.close)(self.connections[0])

    await extended(Threaded)
    peer = await Peer.connected(node, Gowsev())
    await peer.say(b"hello")
    assert (peer.heard(), peer.connection.close_code) == ([b"hello!"], 1000)


async def test_who_was_not_let_in_is_neither_connected_nor_disconnected(
    node: Node, chat: Application, extended: Put
) -> None:
    chat.entry = "users"
    await extended(Echo)
    peer = Peer(node, Gowsev())
    await peer.connect()
    assert peer.connection.close_code == 4501
    peer.disconnect()
    await node.context.tasks.drain()
    assert Echo.told == []


async def test_who_is_gone_before_the_greeting_began_is_greeted_first(node: Node, extended: Put) -> None:
    await extended(Echo)
    application = await node.context.registry.application("chat")
    assert application is not None
    go_on = asyncio.Event()
    # The greeting has to wait for this to end.
    before = asyncio.ensure_future(application.runner.executor.run(go_on.wait))
    peer = Peer(node, Native())
    coming = asyncio.ensure_future(peer.connect())
    await peer.wanted.wait()
    coming.cancel()
    await asyncio.wait({coming})
    peer.disconnect()
    go_on.set()
    await before
    await node.context.tasks.drain()
    assert Echo.told == [("connect", 1), ("disconnect", 1)]


# Answers -----------------------------------------------------------------------------------------------


class Answering(Extension):
    """``act`` is what its handler does with a message called ``do``; ``out`` is what came of it."""

    act: ClassVar[Any]
    out: ClassVar[list[Any]]
    count: ClassVar[int]

    @message("do")
    async def do(self, event: MessageEvent) -> None:
        type(self).count += 1
        event.reply({"done": True})
        self.out.append(await type(self).act(event))


@pytest.fixture
async def doing(extended: Put, monkeypatch: pytest.MonkeyPatch) -> type[Answering]:
    """Puts it on the application."""
    await extended(Answering)
    monkeypatch.setattr(Answering, "out", [], raising=False)
    monkeypatch.setattr(Answering, "count", 0, raising=False)
    return Answering


async def in_room(peer: Peer, room: str) -> None:
    await peer.say(roomer(room, "join", peer.connection.id, peer.connection.id.encode()))
    peer.heard()


async def test_an_answer_goes_to_the_senders_connection_alone(node: Node, doing: type[Answering]) -> None:
    async def act(event: MessageEvent) -> Any:
        return [await event.send("hint", "warm"), await event.send("hint", b"\xff", room="elsewhere")]

    doing.act = staticmethod(act)
    ann, ben = [await Peer.connected(node, Roomer()) for _ in range(2)]
    for peer in (ann, ben):
        await in_room(peer, "lobby")
    ann.heard()
    await ann.say(roomer("lobby", "do", payload=b"x"))
    told = [fields(frame) for frame in ann.heard()]
    assert [(each[0], each[1], each[3], each[4]) for each in told] == [
        ("lobby", "hint", ann.connection.id, b"warm"),
        ("elsewhere", "hint", ann.connection.id, b"\xff"),
    ]
    assert ben.heard() == []
    assert doing.out == [[True, True]]


async def test_an_answer_is_not_given_to_who_is_slow_or_gone(
    node: Node, doing: type[Answering], monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[Any] = []

    async def act(event: MessageEvent) -> Any:
        for work in before:
            work()
        return await event.send("hint", "warm")

    doing.act = staticmethod(act)
    native = await Client.named(node, "ann", "lobby")
    await native.say("lobby", "x", event="do")
    assert [(told["event"], told["data"], told["to"]) for told in native.told("message")] == [
        ("hint", "warm", ["ann"])
    ]
    gone = await Peer.connected(node, Roomer())
    await in_room(gone, "lobby")
    before.append(gone.disconnect)
    await gone.say(roomer("lobby", "do"))
    assert gone.heard() == []
    slow = await Peer.connected(node, Roomer())
    await in_room(slow, "lobby")
    before[:] = [lambda: monkeypatch.setattr(Connection, "is_slow", lambda self: True)]
    await slow.say(roomer("lobby", "do"))
    assert slow.heard() == []
    assert doing.out == [True, False, False]


async def test_a_message_is_sent_on_to_the_room_but_for_its_sender(
    node: Node, doing: type[Answering]
) -> None:
    async def act(event: MessageEvent) -> Any:
        return await event.send_to_room("do", event.data)

    doing.act = staticmethod(act)
    ann, ben = [await Client.named(node, name, "lobby") for name in ("ann", "ben")]
    carl = await Peer.connected(node, Roomer())
    await in_room(carl, "lobby")
    answer = await ann.say("lobby", {"a": 1}, event="do")
    assert answer == {"seq": None, "time": answer["time"], "done": True}
    # It is an ordinary message of the room, in every door and in the history, and no handler is asked again.
    (heard,) = ben.told("message")
    assert (heard["event"], heard["data"], heard["from"]["name"]) == ("do", {"a": 1}, "ann")
    assert heard["seq"] == doing.out[0].seq == 1
    assert fields(carl.heard()[-1])[1:] == ["do", "", "ann", b'{"a": 1}']
    assert ann.told("message") == []
    assert [each.value for each in await node.services.history("chat", "lobby", 10)] == [{"a": 1}]
    assert doing.count == 1


async def test_what_is_sent_on_unchanged_keeps_every_byte(node: Node, doing: type[Answering]) -> None:
    async def act(event: MessageEvent) -> Any:
        await event.send_to_room("as it is", event.data)
        event.data["a"] += 1
        await event.send_to_room("changed", event.data)

    doing.act = staticmethod(act)
    ann, ben = [await Peer.connected(node, Roomer()) for _ in range(2)]
    for peer in (ann, ben):
        await in_room(peer, "lobby")
    payload = b'{ "a" : 1.50, "b": "\\u00e9" }'
    await ann.say(roomer("lobby", "do", payload=payload))
    assert [fields(frame)[4] for frame in ben.heard()] == [payload, '{"a":2.5,"b":"é"}'.encode()]


async def test_a_message_is_sent_on_to_another_room_that_is_there(
    node: Node, doing: type[Answering], caplog: pytest.LogCaptureFixture
) -> None:
    async def act(event: MessageEvent) -> Any:
        return await event.send_to_room("said", "x", room=event.data)

    doing.act = staticmethod(act)
    ann, ben = await Client.named(node, "ann", "lobby"), await Client.named(node, "ben", "cellar")
    await ann.say("lobby", "cellar", event="do")
    assert ben.messages() == ["x"]
    await refused(RoomNotFound, ann.say("lobby", "nowhere", event="do"))
    # To no room at all the handler cannot send: that is a fault of its own.
    with caplog.at_level(logging.ERROR):
        request = SendToApplication(data=msgspec.Raw(b"null"), event="do")
        doing.act = staticmethod(lambda event: event.send_to_room("said", "x"))
        with pytest.raises(Exception, match="Something went wrong"):
            await ann.ask(request)
    assert "Expected the argument room" in caplog.text


async def test_a_message_is_sent_on_to_one_user_in_whatever_room(node: Node, doing: type[Answering]) -> None:
    async def act(event: MessageEvent) -> Any:
        return await event.send_to_user(event.data, "psst", {"a": 1})

    doing.act = staticmethod(act)
    ann, ben, carl = [await Peer.connected(node, Roomer()) for _ in range(3)]
    for peer in (ann, ben, carl):
        await in_room(peer, "lobby")
    await ben.say(roomer("lobby", "leave"))
    for peer in (ann, ben, carl):
        peer.heard()
    await ann.say(roomer("lobby", "do", payload=ben.connection.id.encode()))
    (told,) = ben.heard()
    assert fields(told) == ["root", "psst", ben.connection.id, ann.connection.id, b'{"a":1}']
    assert (ann.heard(), carl.heard()) == ([], [])
    await ann.say(roomer("lobby", "do", payload=b"nobody"))
    assert (ann.heard(), ben.heard(), carl.heard()) == ([], [], [])


async def test_the_reply_goes_before_all_that_its_sender_hears_of_it(
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
    ann.listen()
    await ann.say("lobby", "x", event="do")
    assert [frame.get("event", frame["type"]) for frame in ann.heard[-3:]] == ["reply", "first", "third"]
    assert [fields(frame)[1] for frame in again.heard()] == ["first", "second"]


async def test_the_reply_goes_before_an_answer_to_the_sender_alone(node: Node, extended: Put) -> None:
    class Hinting(Extension):
        @message("message")
        async def take(self, event: MessageEvent) -> None:
            assert await event.send("hint", "warm")

    await extended(Hinting)
    peer = await Peer.connected(node, Gowsev())
    await peer.say("subscribe:lobby")
    await peer.say("publish:lobby:hello")
    assert peer.heard() == [b"OK", b"OK", b"warm"]


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
async def test_what_is_sent_on_has_a_lawful_name(
    node: Node, doing: type[Answering], error: type[Exception], send: Any
) -> None:
    doing.act = staticmethod(send)
    ann = await Client.named(node, "ann", "lobby")
    with pytest.raises(error):
        await ann.say("lobby", "x", event="do")


async def test_a_plain_handler_answers_from_its_thread(node: Node, extended: Put) -> None:
    class Plain(Extension):
        @message("do")
        def do(self, event: MessageEvent) -> None:
            assert async_to_sync(event.send)("hint", 1)
            async_to_sync(event.send_to_room)("said", 2)
            async_to_sync(event.send_to_user)(event.user.name, "psst", 3)

    await extended(Plain)
    ann, ben = [await Peer.connected(node, Roomer()) for _ in range(2)]
    for peer in (ann, ben):
        await in_room(peer, "lobby")
    ann.heard()
    await ann.say(roomer("lobby", "do"))
    assert [fields(frame)[1] for frame in ann.heard()] == ["hint", "psst"]
    assert [fields(frame)[1] for frame in ben.heard()] == ["said"]


# Claims ------------------------------------------------------------------------------------------------


async def test_every_event_of_a_connection_has_its_claims(node: Node, extended: Put) -> None:
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
            seen["taken"] = event.claims

    await extended(Noting)
    peer = Peer(node, Roomer())
    peer.connection.claims = {"key": "17"}
    await peer.connect()
    await node.join.join(peer.connection, CompatJoin(room="lobby"))
    for event in ("do", "other"):
        await node.messages.send(peer.connection, Send(room="lobby", event=event, data=msgspec.Raw(b"1")))
    await peer.say(roomer("lobby", "leave"))
    peer.disconnect()
    await node.context.tasks.drain()
    assert set(seen) == {
        *("connect", "login", "join", "message", "taken", "leaving", "leave", "disconnect"),
    }
    assert all(claims == {"key": "17"} for claims in seen.values())
