"""Messages of clients: acknowledged first, then received once and in order, whatever the layer loses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from rooms.extensions import Extension, MessageEvent, message
from rooms.histories import Appended
from rooms.histories.database import DatabaseHistory
from rooms.models import Application, Message, Mute, Room
from rooms.node import publish as module
from rooms.node import recovery
from rooms.node.node import Node
from rooms.node.publish import ClientMessage
from rooms.node.publisher import PendingMessage
from rooms.protocol.commands import CreateRoom, Join, ListMembers, ReadHistory, Send
from rooms.protocol.errors import (
    BadRequest,
    CloseCode,
    InternalError,
    MessageTooLarge,
    Muted,
    NotMember,
    NotSender,
    Rejected,
    RoomsError,
    UserNotFound,
)
from tests.node.clients import PATIENCE, Client, Install, MakeNode, error_of
from tests.node.unreliable_layer import UnreliableLayer


@pytest.fixture(params=["memory", "database", "none"])
async def history(request: pytest.FixtureRequest, chat: Application) -> str:
    """The history of the application."""
    chat.history = request.param
    await chat.asave()
    return str(request.param)


# Acknowledgement first ---------------------------------------------------------------------------


async def assert_acknowledged_first(node: Node, room: str) -> None:
    """Several clients send at once; each receives the acknowledgement before its own copy."""
    clients = [await Client.named(node, f"{room} {number}", room) for number in range(4)]

    async def send(client: Client) -> None:
        for _ in range(5):
            await client.send(room, client.connection.id)

    await asyncio.gather(*map(send, clients))
    for client in clients:
        await client.until(lambda client=client: len(client.messages()) == 20)
        own = [
            "reply" if frame["type"] == "reply" else "copy"
            for frame in client.frames
            if ("seq" in frame.get("data", {}) if frame["type"] == "reply" else is_own(client, frame))
        ]
        assert own == ["reply", "copy"] * 5


def is_own(client: Client, frame: dict[str, Any]) -> bool:
    return frame["type"] == "message" and frame["data"] == client.connection.id


async def test_the_acknowledgement_comes_before_the_senders_own_copy(node: Node, history: str) -> None:
    await assert_acknowledged_first(node, "lobby")


def broadcast_first(self: ClientMessage, result: Appended) -> None:
    """Broken: broadcasts before the sender receives the acknowledgement."""
    PendingMessage.complete(self, result)
    PendingMessage.finish(self)
    complete_client_message(self, result)


complete_client_message = ClientMessage.complete


async def test_the_assertion_fails_for_broadcasting_first(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClientMessage, "complete", broadcast_first)
    with pytest.raises(AssertionError):
        await assert_acknowledged_first(node, "lobby")


# Broadcast ---------------------------------------------------------------------------------------


async def test_all_members_receive_the_same_in_the_same_order(node: Node, history: str) -> None:
    clients = [await Client.named(node, f"user {number}", "lobby") for number in range(4)]
    await asyncio.gather(*(client.send("lobby", n) for n in range(10) for client in clients))
    received = [
        [(each["from"]["name"], each["data"], each["seq"]) for each in c.received("message")] for c in clients
    ]
    assert all(each == received[0] for each in received)
    assert len(received[0]) == 40
    expected = [None] * 40 if history == "none" else list(range(1, 41))
    assert [seq for _, _, seq in received[0]] == expected
    for number in range(4):
        assert [data for name, data, _ in received[0] if name == f"user {number}"] == list(range(10))


async def test_acknowledgement_copy_and_history_agree(node: Node, history: str) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    sent = await ann.send("lobby", {"a": [1.0, "é"]}, event="score")
    (copy,) = bob.received("message")
    assert copy == ann.received("message")[0]
    assert (sent["seq"], sent["time"]) == (copy["seq"], copy["time"])
    assert copy["time"].endswith("Z")
    assert copy["from"]["name"] == "ann"
    stored = (await bob.request(ReadHistory(room="lobby")))["messages"]
    assert stored == ([] if history == "none" else [copy])


async def test_a_message_is_stored_before_it_is_acknowledged(node: Node, chat: Application) -> None:
    await Room.objects.acreate(application=chat, name="durable", history="database")
    ann = await Client.named(node, "ann", "durable")
    sent = await ann.send("durable", 1)
    assert await Message.objects.filter(seq=sent["seq"]).aexists()


async def test_a_message_without_an_id_is_not_acknowledged(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    ann.read()
    await node.messages.send(ann.connection, Send(room="lobby", data=msgspec.Raw(b"1")))
    assert [frame["type"] for frame in ann.read()] == ["message"]


async def test_a_sender_may_exclude_itself(node: Node, history: str) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    await ann.send("lobby", 1, echo=False)
    await ann.send("lobby", 2)
    assert (ann.messages(), bob.messages()) == ([2], [1, 2])


# Several messages in flight ----------------------------------------------------------------------


def sends(count: int, room: str = "durable", **options: Any) -> list[Send]:
    """Messages that a client sends without waiting for acknowledgements."""
    return [Send(id=n, room=room, data=msgspec.Raw(b"%d" % n), **options) for n in range(count)]


async def test_messages_in_flight_are_all_acknowledged_before_the_broadcast(
    node: Node, durable: Room
) -> None:
    ann, bob = await Client.named(node, "ann", "durable"), await Client.named(node, "bob", "durable")
    ann.read()
    for each in sends(8):
        await node.messages.send(ann.connection, each)
    await ann.connection.wait_idle()
    frames = ann.read()
    assert [frame["type"] for frame in frames] == ["reply"] * 8 + ["message"] * 8
    assert [frame["id"] for frame in frames[:8]] == bob.messages() == list(range(8))
    assert [frame["data"]["seq"] for frame in frames[:8]] == [frame["seq"] for frame in frames[8:]]


@pytest.mark.parametrize(("each_connection", "together", "most"), [(3, 512, 3), (16, 1, 1), (16, 512, 16)])
async def test_a_limited_number_of_messages_waits_for_the_history(
    node: Node,
    durable: Room,
    monkeypatch: pytest.MonkeyPatch,
    each_connection: int,
    together: int,
    most: int,
) -> None:
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", each_connection)
    monkeypatch.setattr(module, "MAX_IN_FLIGHT_TOTAL", together)
    ann = await Client.named(node, "ann", "durable")
    waiting = []
    for each in sends(40):
        await node.messages.send(ann.connection, each)
        waiting.append(ann.connection.in_flight)
    assert max(waiting) == most
    await ann.connection.wait_idle()
    assert ann.messages() == list(range(40))


@pytest.mark.parametrize("other", [{"volatile": True}, {"to": "ann"}, {"state": True}, {"room": "lobby"}])
async def test_a_message_of_another_kind_waits_for_the_earlier_ones(
    node: Node, durable: Room, other: dict[str, Any]
) -> None:
    ann = await Client.named(node, "ann", "durable", "lobby")
    (first,) = sends(1)
    await node.messages.send(ann.connection, first)
    assert ann.connection.in_flight == 1
    second = Send(**{"room": "durable", "id": 1, "data": msgspec.Raw(b"1")} | other)
    await node.messages.send(ann.connection, second)
    await ann.connection.wait_idle()
    assert ann.messages() == [0, 1]
    assert [each["id"] for each in ann.received("reply") if "seq" in each["data"]] == [0, 1]


# Idempotency keys --------------------------------------------------------------------------------


async def test_a_used_key_returns_the_first_acknowledgement_and_sends_nothing(
    node: Node, history: str
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    first = await ann.send("lobby", 1, key="k")
    assert await ann.send("lobby", 2, key="k") == first
    await bob.send("lobby", 3, key="k")
    assert ann.messages() == bob.messages() == [1, 3]


async def test_a_key_that_is_sent_several_times_at_once_sends_one_message(
    node: Node, chat: Application
) -> None:
    await Room.objects.acreate(application=chat, name="durable", history="database")
    ann, bob = await Client.named(node, "ann", "durable"), await Client.named(node, "bob", "durable")
    replies = await asyncio.gather(*(ann.send("durable", n, key="k") for n in range(5)))
    assert all(reply == replies[0] for reply in replies)
    assert len(bob.messages()) == 1


@pytest.mark.parametrize("options", [{"volatile": True}, {"to": "ann"}])
async def test_keys_work_for_messages_that_no_history_stores(node: Node, options: dict[str, Any]) -> None:
    ann = await Client.named(node, "ann", "lobby")
    first = await ann.send("lobby", 1, key="k", **options)
    assert first["seq"] is None
    assert await ann.send("lobby", 2, key="k", **options) == first
    assert ann.messages() == [1]


async def test_a_limited_number_of_keys_is_remembered(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    ann = await Client.named(node, "ann", "lobby")
    for key in ("a", "b", "c", "b", "a"):
        await ann.send("lobby", key, key=key, volatile=True)
    assert ann.messages() == ["a", "b", "c", "a"]


# Recipients, state, volatile messages ------------------------------------------------------------


async def test_a_message_to_users_reaches_all_their_connections_and_no_others(
    node: Node, history: str
) -> None:
    ann, bob, eve = [await Client.named(node, name, "lobby") for name in ("Ann", "bob", "eve")]
    sent = await bob.send("lobby", "psst", to=["ANN", "ann"])
    assert sent["seq"] is None
    (received,) = ann.received("message")
    assert (received["data"], received["to"], received["seq"]) == ("psst", ["Ann"], None)
    assert (bob.messages(), eve.messages()) == ([], [])
    await bob.send("lobby", "us", to=["ann", "bob"])
    assert (ann.messages(), bob.messages(), eve.messages()) == (["psst", "us"], ["us"], [])
    assert (await ann.request(ReadHistory(room="lobby")))["messages"] == []


async def test_a_message_to_a_user_that_is_no_member_reaches_no_member(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    await Client.named(node, "eve", "elsewhere")
    error = await error_of(UserNotFound, bob.send("lobby", "psst", to=["ann", "eve"]))
    assert "eve" in error.message
    assert ann.messages() == []


async def test_state_is_broadcast_and_is_part_of_the_snapshot(node: Node, history: str) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    await ann.send("lobby", "tea", event="topic", state=True)
    (received,) = ann.received("message")
    assert received["state"] is True
    state = (await bob.request(Join(room="lobby")))["state"]
    assert state == [received]
    await ann.send("lobby", None, event="topic", state=True)
    assert (await bob.request(Join(room="lobby")))["state"] == []


@pytest.mark.parametrize("options", [{"to": "ann"}, {"volatile": True}])
async def test_state_takes_neither_to_nor_volatile(node: Node, options: dict[str, Any]) -> None:
    ann = await Client.named(node, "ann", "lobby")
    await error_of(BadRequest, ann.send("lobby", 1, state=True, **options))


async def test_volatile_messages_are_not_stored_and_not_sent_to_slow_clients(
    node: Node, history: str
) -> None:
    ann = await Client.named(node, "ann", "lobby")
    slow = await Client.named(node, "slow", "lobby", frames=4)
    slow.read()
    slow.connection.writing_since = 1.0
    for number in range(8):
        sent = await ann.send("lobby", number, volatile=True)
        assert sent["seq"] is None
    assert ann.messages() == list(range(8))
    assert slow.messages() == [0, 1, 2]
    assert node.context.hub.dropped["volatile"] == 5
    assert (await ann.request(ReadHistory(room="lobby")))["messages"] == []


async def test_a_client_that_does_not_read_is_closed_and_others_are_not_affected(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    slow = await Client.named(node, "slow", "lobby", frames=4)
    slow.read()
    slow.connection.writing_since = 1.0
    for number in range(8):
        await ann.send("lobby", number)
    assert ann.messages() == list(range(8))
    assert slow.closed == 4001
    assert slow.read()[-1]["code"] == 4001


# Errors ------------------------------------------------------------------------------------------


async def test_only_members_with_permission_can_send(node: Node, chat: Application) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(CreateRoom(room="stage", mode="broadcast"))
    for client in (ann, bob):
        await client.request(Join(room="stage"))
    await error_of(NotSender, bob.send("stage", 1))
    await ann.send("stage", 2)
    await Mute.objects.acreate(application=chat, guest="ann")
    await node.context.tasks.drain()
    await error_of(Muted, ann.send("stage", 3))
    await error_of(NotMember, bob.send("nowhere", 1))
    assert bob.messages() == [2]


async def test_the_size_of_a_message_is_limited(node: Node, chat: Application) -> None:
    chat.max_message_bytes = 10
    await chat.asave()
    await node.context.tasks.drain()
    ann = await Client.named(node, "ann", "lobby")
    await ann.send("lobby", "12345678")
    await error_of(MessageTooLarge, ann.send("lobby", "123456789"))
    await error_of(MessageTooLarge, ann.send("lobby", "éééééé"))


async def test_members_and_history_are_read_in_pages(node: Node) -> None:
    clients = [await Client.named(node, f"user {number}", "lobby") for number in range(3)]
    for number in range(4):
        await clients[0].send("lobby", number)
    page = await clients[0].request(ListMembers(room="lobby", limit=2))
    assert ([user["name"] for user in page["members"]], page["count"], page["more"]) == (
        *(["user 0", "user 1"], 3, True),
    )
    page = await clients[0].request(ListMembers(room="lobby", after="user 1"))
    assert ([user["name"] for user in page["members"]], page["more"]) == (["user 2"], False)
    page = await clients[0].request(ReadHistory(room="lobby", before=4, limit=2))
    assert ([each["data"] for each in page["messages"]], page["more"]) == ([1, 2], True)


async def test_a_missing_history_fails_and_blocks_no_sender(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    room = node.context.registry.cached_room("chat", "lobby")
    assert room is not None
    room.config = replace(room.config, history="nowhere")
    async with asyncio.timeout(PATIENCE):
        await error_of(InternalError, ann.send("lobby", 1))
    assert not ann.connection.is_busy()


async def test_a_failed_broadcast_does_not_fail_the_message(
    node: Node, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Client.named(node, "ann", "lobby")
    room = node.context.registry.cached_room("chat", "lobby")
    assert room is not None

    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(type(room), "broadcast", broken)
    async with asyncio.timeout(PATIENCE):
        await ann.send("lobby", 1)
        assert (await node.publisher.publish(room, 2)).data == msgspec.Raw(b"2")


# Extensions --------------------------------------------------------------------------------------

CALLS: list[str] = []


class Filter(Extension):
    """Changes, rejects or handles a message, or raises, as its data selects."""

    @property
    def level(self) -> str:
        return "room" if self.room else "application"

    async def on_message(self, event: MessageEvent) -> None:
        CALLS.append(f"{self.level} {event.data}")
        if event.data == "reject":
            raise Rejected("Not that.")
        if event.data == "break":
            raise ValueError("secret")
        if event.data == "change":
            event.data = {"changed by": [self.level]}
        elif isinstance(event.data, dict):
            event.data["changed by"].append(self.level)

    @message("roll")
    async def roll(self, event: MessageEvent) -> None:
        assert self.room is not None or self.level == "application"
        await event.room.publish("rolled", event.data)
        await event.reply({"by": self.level})

    @message("threaded")
    def threaded(self, event: MessageEvent) -> None:
        event.reply({"in": "thread"})

    @message("exit")
    async def exit(self, event: MessageEvent) -> None:
        raise SystemExit


@pytest.fixture
async def filtered(chat: Application, install_extension: Install) -> None:
    CALLS.clear()
    name = install_extension(Filter)
    chat.extension = name
    await chat.asave()
    await Room.objects.acreate(application=chat, name="lobby", extension=name)
    await Room.objects.acreate(application=chat, name="plain")


@pytest.mark.usefixtures("filtered")
class TestExtensions:
    async def test_the_rooms_extension_is_called_before_the_applications(self, node: Node) -> None:
        ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
        await ann.send("lobby", "change")
        assert bob.messages() == [{"changed by": ["room", "application"]}]
        assert CALLS[0] == "room change"
        stored = (await bob.request(ReadHistory(room="lobby")))["messages"]
        assert stored[0]["data"] == {"changed by": ["room", "application"]}

    async def test_an_applications_extension_receives_the_messages_of_its_rooms(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "plain")
        await ann.send("plain", "change")
        assert ann.messages() == [{"changed by": ["application"]}]

    async def test_unchanged_data_is_passed_on_byte_for_byte(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "lobby")
        ann.read()
        await node.messages.send(ann.connection, Send(room="lobby", data=msgspec.Raw(b'"\\u0068i" ')))
        assert b'"\\u0068i"' in ann.connection.pop_all()[0]

    @pytest.mark.parametrize(("data", "code"), [("reject", "rejected"), ("break", "internal_error")])
    async def test_a_rejected_message_reaches_no_member(self, node: Node, data: str, code: str) -> None:
        ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
        error = await error_of(RoomsError, ann.send("lobby", data))
        assert error.code == code
        assert "secret" not in error.message
        await ann.send("lobby", "fine")
        assert ann.messages() == bob.messages() == ["fine"]
        assert "application reject" not in CALLS

    async def test_a_handlers_reply_comes_before_what_it_publishes(self, node: Node) -> None:
        ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
        ann.read()
        id = len(ann.frames)
        reply = await ann.send("lobby", 6, event="roll")
        assert reply["by"] == "room"
        assert reply["seq"] is None
        assert [frame["type"] for frame in ann.frames[id:] if frame["type"] != "joined"] == [
            "reply",
            "message",
        ]
        (received,) = bob.received("message")
        assert (received["event"], received["data"], received["from"]) == ("rolled", 6, None)
        assert CALLS == []

    async def test_a_handler_of_the_application_serves_rooms_without_one(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "plain")
        assert (await ann.send("plain", 6, event="roll"))["by"] == "application"

    async def test_a_handler_may_be_a_plain_function(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "lobby")
        assert (await ann.send("lobby", 1, event="threaded"))["in"] == "thread"

    async def test_a_used_key_returns_the_reply_of_the_handler(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "lobby")
        first = await ann.send("lobby", 6, event="roll", key="k")
        assert await ann.send("lobby", 6, event="roll", key="k") == first
        assert ann.messages() == [6]

    async def test_an_exit_of_a_handler_does_not_end_the_server(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "lobby")
        error = await error_of(RoomsError, ann.send("lobby", 1, event="exit"))
        assert error.code == "internal_error"
        await ann.send("lobby", "fine")
        assert ann.messages() == ["fine"]

    async def test_messages_of_the_server_pass_no_extension(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "lobby")
        await node.services.publish(
            "chat", "lobby", "reject", event="message", to=None, state=False, volatile=False
        )
        assert ann.messages() == ["reject"]


# Two processes -----------------------------------------------------------------------------------


@pytest.fixture
async def durable(chat: Application) -> Room:
    """A room that several processes share."""
    return await Room.objects.acreate(application=chat, name="durable", history="database")


@pytest.mark.usefixtures("durable")
class TestTwoProcesses:
    @pytest.fixture(autouse=True)
    def no_gap_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recovery, "GAP_SECONDS", 0)

    async def pair(self, make_node: MakeNode) -> tuple[Client, Client]:
        nodes = await make_node(), await make_node()
        return await Client.named(nodes[0], "ann", "durable"), await Client.named(nodes[1], "bob", "durable")

    async def send_lost(self, unreliable_layer: UnreliableLayer, sender: Client, *numbers: int) -> None:
        """Send messages while the layer loses everything."""
        unreliable_layer.loses = lambda group, message: True
        for number in numbers:
            await sender.send("durable", number)
        await sender.node.context.broker.flush()
        unreliable_layer.loses = lambda group, message: False

    async def test_members_in_two_processes_receive_the_same_in_order(self, make_node: MakeNode) -> None:
        ann, bob = await self.pair(make_node)

        async def send(client: Client, name: str) -> None:
            for number in range(30):
                await client.send("durable", [name, number])

        await asyncio.gather(send(ann, "ann"), send(bob, "bob"))
        for client in (ann, bob):
            await client.until(lambda client=client: len(client.messages()) >= 60)
            assert [each["seq"] for each in client.received("message")] == list(range(1, 61))
        assert ann.messages() == bob.messages()

    async def test_a_lost_message_is_fetched_when_the_next_one_comes(
        self, make_node: MakeNode, unreliable_layer: UnreliableLayer
    ) -> None:
        ann, bob = await self.pair(make_node)
        await ann.send("durable", 1)
        await bob.until(lambda: bob.messages() == [1])
        await self.send_lost(unreliable_layer, ann, 2, 3)
        await ann.send("durable", 4)
        await bob.until(lambda: len(bob.messages()) == 4)
        assert bob.messages() == ann.messages() == [1, 2, 3, 4]

    async def test_a_lost_last_message_is_found_when_positions_are_compared(
        self, make_node: MakeNode, unreliable_layer: UnreliableLayer
    ) -> None:
        ann, bob = await self.pair(make_node)
        await ann.send("durable", 1)
        await bob.until(lambda: bob.messages() == [1])
        await self.send_lost(unreliable_layer, ann, 2, 3)
        await bob.node.recovery.check()
        await bob.until(lambda: bob.messages() == [1, 2, 3])

    async def test_equal_positions_fetch_no_messages(
        self, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ann, bob = await self.pair(make_node)
        await ann.send("durable", 1)
        await bob.until(lambda: bob.messages() == [1])
        monkeypatch.setattr(bob.node.context.histories["database"], "messages_after", None)
        await bob.node.recovery.check()
        await bob.node.context.tasks.drain()
        assert bob.messages() == [1]

    async def test_members_are_closed_when_the_last_lost_message_is_not_stored_any_more(
        self, make_node: MakeNode, unreliable_layer: UnreliableLayer, durable: Room
    ) -> None:
        ann, bob = await self.pair(make_node)
        await self.send_lost(unreliable_layer, ann, 1)
        await durable.messages.all().adelete()
        await bob.node.recovery.check()
        await bob.node.context.tasks.drain()
        await ann.send("durable", 2)
        await ann.node.context.broker.flush()
        assert (ann.closed, bob.closed) == (None, CloseCode.RESYNC)
        assert bob.messages() == []

    async def test_the_next_own_message_finds_the_gap_and_is_acknowledged_first(
        self, make_node: MakeNode, unreliable_layer: UnreliableLayer
    ) -> None:
        ann, bob = await self.pair(make_node)
        unreliable_layer.loses = lambda group, message: True
        await ann.send("durable", 1)
        await ann.node.context.broker.flush()
        sent = await bob.send("durable", 2)
        assert sent["seq"] == 2
        await bob.until(lambda: bob.messages() == [1, 2])
        kinds = [
            frame["type"]
            for frame in bob.frames
            if frame["type"] == "message" or "seq" in frame.get("data", {})
        ]
        assert kinds == ["reply", "message", "message"]

    async def test_a_duplicate_of_the_layer_is_sent_once(
        self, make_node: MakeNode, unreliable_layer: UnreliableLayer
    ) -> None:
        ann, bob = await self.pair(make_node)
        for number in range(3):
            await ann.send("durable", number)
        await ann.node.context.broker.flush()
        for group, frames in [each for each in unreliable_layer.sent if each[0].startswith("room.")]:
            await unreliable_layer.group_send(
                group, {"type": "rooms.relay", "node": "x", "group": group, "frames": frames}
            )
        await ann.send("durable", 3)
        await bob.until(lambda: 3 in bob.messages())
        assert bob.messages() == [0, 1, 2, 3]

    async def test_members_are_closed_when_a_gap_is_not_stored_any_more(
        self, make_node: MakeNode, unreliable_layer: UnreliableLayer, durable: Room
    ) -> None:
        ann, bob = await self.pair(make_node)
        unreliable_layer.loses = lambda group, message: True
        for number in (1, 2):
            await ann.send("durable", number)
        await ann.node.context.broker.flush()
        await Message.objects.all().adelete()
        unreliable_layer.loses = lambda group, message: False
        await ann.send("durable", 3)
        await bob.until(lambda: bob.closed == CloseCode.RESYNC)
        assert (ann.closed, bob.messages()) == (None, [])

    async def test_a_message_to_users_reaches_only_these_in_another_process(
        self, make_node: MakeNode
    ) -> None:
        ann, bob = await self.pair(make_node)
        eve = await Client.named(bob.node, "eve", "durable")
        # Presence in memory belongs to one process: here, bob is added to that of ann's.
        await ann.node.context.presence.add(
            ann.connection.memberships["durable"].room.key, bob.connection.id, bob.connection.user
        )
        await ann.send("durable", "psst", to="bob")
        await ann.send("durable", "all")
        await bob.until(lambda: "all" in bob.messages())
        await eve.until(lambda: "all" in eve.messages())
        assert (bob.messages(), eve.messages()) == (["psst", "all"], ["all"])


async def test_a_fetched_gap_comes_after_the_acknowledgements_of_its_messages(
    node: Node, durable: Room
) -> None:
    """A fetch may read what this process has just committed; the sender is still acknowledged first."""
    ann, bob = await Client.named(node, "ann", "durable"), await Client.named(node, "bob", "durable")
    history = node.context.histories["database"]
    assert isinstance(history, DatabaseHistory)
    room = node.context.registry.cached_room("chat", "durable")
    assert room is not None

    async def fetch() -> None:
        for each in await history.messages_after(room.config, 0):
            room.broadcast(each)

    await asyncio.gather(*(each for n in range(10) for each in (ann.send("durable", n), fetch())))
    frames = [
        frame
        for frame in ann.received("reply", "message")
        if frame["type"] == "message" or "seq" in frame["data"]
    ]
    for n in range(10):
        reply = next(i for i, f in enumerate(frames) if f["type"] == "reply" and f["data"]["seq"] == n + 1)
        copy = next(i for i, f in enumerate(frames) if f["type"] == "message" and f["seq"] == n + 1)
        assert reply < copy
    assert bob.messages() == list(range(10))
