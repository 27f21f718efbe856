"""Saying something: the answer first, everybody once and in order, whatever hints get lost."""

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
from rooms.node.pending_message import ClientMessage, PendingMessage
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
from tests.node.clients import PATIENCE, Client, Install, MakeEngine, refused
from tests.node.wires import Wire


@pytest.fixture(params=["memory", "database", "none"])
async def history(request: pytest.FixtureRequest, chat: Application) -> str:
    """Where the application's messages are kept."""
    chat.history = request.param
    await chat.asave()
    return str(request.param)


# The answer first --------------------------------------------------------------------------------


async def check_that_the_answer_comes_first(node: Node, room: str) -> None:
    """Several speak at the same time, and each hears the answer before its own copy."""
    clients = [await Client.named(node, f"{room} {number}", room) for number in range(4)]

    async def speak(client: Client) -> None:
        for _ in range(5):
            await client.say(room, client.connection.id)

    await asyncio.gather(*map(speak, clients))
    for client in clients:
        await client.until(lambda client=client: len(client.messages()) == 20)
        own = [
            "answer" if frame["type"] == "reply" else "copy"
            for frame in client.heard
            if ("seq" in frame.get("data", {}) if frame["type"] == "reply" else is_own(client, frame))
        ]
        assert own == ["answer", "copy"] * 5


def is_own(client: Client, frame: dict[str, Any]) -> bool:
    return frame["type"] == "message" and frame["data"] == client.connection.id


async def test_the_answer_comes_before_the_senders_own_copy(node: Node, history: str) -> None:
    await check_that_the_answer_comes_first(node, "lobby")


def told_first(self: ClientMessage, result: Appended) -> None:
    """Broken: the room is told before the sender is answered."""
    PendingMessage.complete(self, result)
    PendingMessage.finish(self)
    complete_client_message(self, result)


complete_client_message = ClientMessage.complete


async def test_the_check_above_catches_telling_first(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientMessage, "complete", told_first)
    with pytest.raises(AssertionError):
        await check_that_the_answer_comes_first(node, "lobby")


# What is told ------------------------------------------------------------------------------------


async def test_everybody_hears_the_same_in_the_same_order(node: Node, history: str) -> None:
    clients = [await Client.named(node, f"user {number}", "lobby") for number in range(4)]
    await asyncio.gather(*(client.say("lobby", n) for n in range(10) for client in clients))
    heard = [
        [(each["from"]["name"], each["data"], each["seq"]) for each in c.told("message")] for c in clients
    ]
    assert all(each == heard[0] for each in heard)
    assert len(heard[0]) == 40
    expected = [None] * 40 if history == "none" else list(range(1, 41))
    assert [seq for _, _, seq in heard[0]] == expected
    for number in range(4):
        assert [data for name, data, _ in heard[0] if name == f"user {number}"] == list(range(10))


async def test_answer_copy_and_history_agree(node: Node, history: str) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    answer = await ann.say("lobby", {"a": [1.0, "é"]}, event="score")
    (copy,) = bob.told("message")
    assert copy == ann.told("message")[0]
    assert (answer["seq"], answer["time"]) == (copy["seq"], copy["time"])
    assert copy["time"].endswith("Z")
    assert copy["from"]["name"] == "ann"
    kept = (await bob.ask(ReadHistory(room="lobby")))["messages"]
    assert kept == ([] if history == "none" else [copy])


async def test_a_message_is_kept_before_it_is_answered(node: Node, chat: Application) -> None:
    await Room.objects.acreate(application=chat, name="kept", history="database")
    ann = await Client.named(node, "ann", "kept")
    answer = await ann.say("kept", 1)
    assert await Message.objects.filter(seq=answer["seq"]).aexists()


async def test_without_an_id_success_is_silent(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    ann.listen()
    await node.messages.send(ann.connection, Send(room="lobby", data=msgspec.Raw(b"1")))
    assert [frame["type"] for frame in ann.listen()] == ["message"]


async def test_one_may_go_without_the_own_copy(node: Node, history: str) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    await ann.say("lobby", 1, echo=False)
    await ann.say("lobby", 2)
    assert (ann.messages(), bob.messages()) == ([2], [1, 2])


# Several at once ---------------------------------------------------------------------------------


def several(count: int, room: str = "kept", **options: Any) -> list[Send]:
    """What one says without waiting for answers."""
    return [Send(id=n, room=room, data=msgspec.Raw(b"%d" % n), **options) for n in range(count)]


async def test_whoever_says_several_things_is_answered_and_then_told(node: Node, kept: Room) -> None:
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob", "kept")
    ann.listen()
    for each in several(8):
        await node.messages.send(ann.connection, each)
    await ann.connection.wait_idle()
    heard = ann.listen()
    assert [frame["type"] for frame in heard] == ["reply"] * 8 + ["message"] * 8
    assert [frame["id"] for frame in heard[:8]] == bob.messages() == list(range(8))
    assert [frame["data"]["seq"] for frame in heard[:8]] == [frame["seq"] for frame in heard[8:]]


@pytest.mark.parametrize(("unanswered", "together", "most"), [(3, 512, 3), (16, 1, 1), (16, 512, 16)])
async def test_so_many_wait_for_the_history(
    node: Node,
    kept: Room,
    monkeypatch: pytest.MonkeyPatch,
    unanswered: int,
    together: int,
    most: int,
) -> None:
    monkeypatch.setattr(module, "MOST_UNANSWERED", unanswered)
    monkeypatch.setattr(module, "MOST_TOGETHER", together)
    ann = await Client.named(node, "ann", "kept")
    waiting = []
    for each in several(40):
        await node.messages.send(ann.connection, each)
        waiting.append(ann.connection.in_flight)
    assert max(waiting) == most
    await ann.connection.wait_idle()
    assert ann.messages() == list(range(40))


@pytest.mark.parametrize("other", [{"volatile": True}, {"to": "ann"}, {"state": True}, {"room": "lobby"}])
async def test_what_goes_another_way_waits_for_what_was_said_before(
    node: Node, kept: Room, other: dict[str, Any]
) -> None:
    ann = await Client.named(node, "ann", "kept", "lobby")
    (first,) = several(1)
    await node.messages.send(ann.connection, first)
    assert ann.connection.in_flight == 1
    second = Send(**{"room": "kept", "id": 1, "data": msgspec.Raw(b"1")} | other)
    await node.messages.send(ann.connection, second)
    await ann.connection.wait_idle()
    assert ann.messages() == [0, 1]
    assert [each["id"] for each in ann.told("reply") if "seq" in each["data"]] == [0, 1]


# Keys --------------------------------------------------------------------------------------------


async def test_a_key_that_was_used_returns_the_first_answer_and_sends_nothing(
    node: Node, history: str
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    first = await ann.say("lobby", 1, key="k")
    assert await ann.say("lobby", 2, key="k") == first
    await bob.say("lobby", 3, key="k")
    assert ann.messages() == bob.messages() == [1, 3]


async def test_a_key_sent_twice_at_the_same_time(node: Node, chat: Application) -> None:
    await Room.objects.acreate(application=chat, name="kept", history="database")
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob", "kept")
    answers = await asyncio.gather(*(ann.say("kept", n, key="k") for n in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert len(bob.messages()) == 1


@pytest.mark.parametrize("options", [{"volatile": True}, {"to": "ann"}])
async def test_keys_of_what_is_not_kept(node: Node, options: dict[str, Any]) -> None:
    ann = await Client.named(node, "ann", "lobby")
    first = await ann.say("lobby", 1, key="k", **options)
    assert first["seq"] is None
    assert await ann.say("lobby", 2, key="k", **options) == first
    assert ann.messages() == [1]


async def test_so_many_keys_are_remembered(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEYS", 2)
    ann = await Client.named(node, "ann", "lobby")
    for key in ("a", "b", "c", "b", "a"):
        await ann.say("lobby", key, key=key, volatile=True)
    assert ann.messages() == ["a", "b", "c", "a"]


# To some, state, volatile ------------------------------------------------------------------------


async def test_to_some_on_all_their_connections_and_to_nobody_else(node: Node, history: str) -> None:
    ann, bob, eve = [await Client.named(node, name, "lobby") for name in ("Ann", "bob", "eve")]
    answer = await bob.say("lobby", "psst", to=["ANN", "ann"])
    assert answer["seq"] is None
    (told,) = ann.told("message")
    assert (told["data"], told["to"], told["seq"]) == ("psst", ["Ann"], None)
    assert (bob.messages(), eve.messages()) == ([], [])
    await bob.say("lobby", "us", to=["ann", "bob"])
    assert (ann.messages(), bob.messages(), eve.messages()) == (["psst", "us"], ["us"], [])
    assert (await ann.ask(ReadHistory(room="lobby")))["messages"] == []


async def test_to_somebody_who_is_not_there_reaches_nobody(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    await Client.named(node, "eve", "elsewhere")
    error = await refused(UserNotFound, bob.say("lobby", "psst", to=["ann", "eve"]))
    assert "eve" in error.message
    assert ann.messages() == []


async def test_state_is_told_and_handed_over(node: Node, history: str) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    await ann.say("lobby", "tea", event="topic", state=True)
    (told,) = ann.told("message")
    assert told["state"] is True
    state = (await bob.ask(Join(room="lobby")))["state"]
    assert state == [told]
    await ann.say("lobby", None, event="topic", state=True)
    assert (await bob.ask(Join(room="lobby")))["state"] == []


@pytest.mark.parametrize("options", [{"to": "ann"}, {"volatile": True}])
async def test_state_is_for_everybody_and_is_kept(node: Node, options: dict[str, Any]) -> None:
    ann = await Client.named(node, "ann", "lobby")
    await refused(BadRequest, ann.say("lobby", 1, state=True, **options))


async def test_volatile_messages_are_not_kept_and_not_for_the_slow(node: Node, history: str) -> None:
    ann = await Client.named(node, "ann", "lobby")
    slow = await Client.named(node, "slow", "lobby", frames=4)
    slow.listen()
    slow.connection.writing_since = 1.0
    for number in range(8):
        answer = await ann.say("lobby", number, volatile=True)
        assert answer["seq"] is None
    assert ann.messages() == list(range(8))
    assert slow.messages() == [0, 1, 2]
    assert node.context.hub.dropped["volatile"] == 5
    assert (await ann.ask(ReadHistory(room="lobby")))["messages"] == []


async def test_one_who_does_not_read_is_closed_and_nobody_else_notices(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    slow = await Client.named(node, "slow", "lobby", frames=4)
    slow.listen()
    slow.connection.writing_since = 1.0
    for number in range(8):
        await ann.say("lobby", number)
    assert ann.messages() == list(range(8))
    assert slow.closed == 4001
    assert slow.listen()[-1]["code"] == 4001


# Refusals ----------------------------------------------------------------------------------------


async def test_who_may_not_speak(node: Node, chat: Application) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(CreateRoom(room="stage", mode="broadcast"))
    for client in (ann, bob):
        await client.ask(Join(room="stage"))
    await refused(NotSender, bob.say("stage", 1))
    await ann.say("stage", 2)
    await Mute.objects.acreate(application=chat, guest="ann")
    await node.context.tasks.drain()
    await refused(Muted, ann.say("stage", 3))
    await refused(NotMember, bob.say("nowhere", 1))
    assert bob.messages() == [2]


async def test_a_message_has_a_most_bytes(node: Node, chat: Application) -> None:
    chat.max_message_bytes = 10
    await chat.asave()
    await node.context.tasks.drain()
    ann = await Client.named(node, "ann", "lobby")
    await ann.say("lobby", "12345678")
    await refused(MessageTooLarge, ann.say("lobby", "123456789"))
    await refused(MessageTooLarge, ann.say("lobby", "éééééé"))


async def test_pages_of_members_and_history(node: Node) -> None:
    clients = [await Client.named(node, f"user {number}", "lobby") for number in range(3)]
    for number in range(4):
        await clients[0].say("lobby", number)
    page = await clients[0].ask(ListMembers(room="lobby", limit=2))
    assert ([user["name"] for user in page["members"]], page["count"], page["more"]) == (
        *(["user 0", "user 1"], 3, True),
    )
    page = await clients[0].ask(ListMembers(room="lobby", after="user 1"))
    assert ([user["name"] for user in page["members"]], page["more"]) == (["user 2"], False)
    page = await clients[0].ask(ReadHistory(room="lobby", before=4, limit=2))
    assert ([each["data"] for each in page["messages"]], page["more"]) == ([1, 2], True)


async def test_a_history_that_is_not_set_up_any_more_leaves_nobody_waiting(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    room = node.context.registry.cached_room("chat", "lobby")
    assert room is not None
    room.config = replace(room.config, history="nowhere")
    async with asyncio.timeout(PATIENCE):
        await refused(InternalError, ann.say("lobby", 1))
    assert not ann.connection.is_busy()


async def test_what_could_not_be_told_is_said_all_the_same(
    node: Node, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Client.named(node, "ann", "lobby")
    room = node.context.registry.cached_room("chat", "lobby")
    assert room is not None

    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(node.context.hub, "group_send", broken)
    async with asyncio.timeout(PATIENCE):
        await ann.say("lobby", 1)
        assert (await node.publisher.publish(room, 2)).data == msgspec.Raw(b"2")


# Extensions --------------------------------------------------------------------------------------

CALLS: list[str] = []


class Filter(Extension):
    """Changes, refuses, breaks, or takes, as the message says."""

    @property
    def place(self) -> str:
        return "room" if self.room else "application"

    async def on_message(self, event: MessageEvent) -> None:
        CALLS.append(f"{self.place} {event.data}")
        if event.data == "refuse":
            raise Rejected("Not that.")
        if event.data == "break":
            raise ValueError("secret")
        if event.data == "change":
            event.data = {"changed by": [self.place]}
        elif isinstance(event.data, dict):
            event.data["changed by"].append(self.place)

    @message("roll")
    async def roll(self, event: MessageEvent) -> None:
        assert self.room is not None or self.place == "application"
        await event.room.publish("rolled", event.data)
        await event.reply({"by": self.place})

    @message("threaded")
    def threaded(self, event: MessageEvent) -> None:
        event.reply({"in": "thread"})

    @message("exit")
    async def exit(self, event: MessageEvent) -> None:
        raise SystemExit


@pytest.fixture
async def filtered(chat: Application, installed: Install) -> None:
    CALLS.clear()
    name = installed(Filter)
    chat.extension = name
    await chat.asave()
    await Room.objects.acreate(application=chat, name="lobby", extension=name)
    await Room.objects.acreate(application=chat, name="plain")


@pytest.mark.usefixtures("filtered")
class TestExtensions:
    async def test_the_room_is_asked_before_its_application(self, node: Node) -> None:
        ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
        await ann.say("lobby", "change")
        assert bob.messages() == [{"changed by": ["room", "application"]}]
        assert CALLS[0] == "room change"
        kept = (await bob.ask(ReadHistory(room="lobby")))["messages"]
        assert kept[0]["data"] == {"changed by": ["room", "application"]}

    async def test_an_applications_extension_hears_its_rooms(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "plain")
        await ann.say("plain", "change")
        assert ann.messages() == [{"changed by": ["application"]}]

    async def test_what_is_not_changed_stays_letter_for_letter(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "lobby")
        ann.listen()
        await node.messages.send(ann.connection, Send(room="lobby", data=msgspec.Raw(b'"\\u0068i" ')))
        assert b'"\\u0068i"' in ann.connection.pop_all()[0]

    @pytest.mark.parametrize(("data", "code"), [("refuse", "rejected"), ("break", "internal_error")])
    async def test_what_is_refused_reaches_nobody(self, node: Node, data: str, code: str) -> None:
        ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
        error = await refused(RoomsError, ann.say("lobby", data))
        assert error.code == code
        assert "secret" not in error.message
        await ann.say("lobby", "fine")
        assert ann.messages() == bob.messages() == ["fine"]
        assert "application refuse" not in CALLS

    async def test_a_taker_answers_before_what_it_publishes(self, node: Node) -> None:
        ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
        ann.listen()
        id = len(ann.heard)
        answer = await ann.say("lobby", 6, event="roll")
        assert answer["by"] == "room"
        assert answer["seq"] is None
        assert [frame["type"] for frame in ann.heard[id:] if frame["type"] != "joined"] == [
            "reply",
            "message",
        ]
        (told,) = bob.told("message")
        assert (told["event"], told["data"], told["from"]) == ("rolled", 6, None)
        assert CALLS == []

    async def test_a_taker_of_the_application_serves_rooms_without_one(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "plain")
        assert (await ann.say("plain", 6, event="roll"))["by"] == "application"

    async def test_a_plain_function_takes_too(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "lobby")
        assert (await ann.say("lobby", 1, event="threaded"))["in"] == "thread"

    async def test_a_key_of_what_was_taken_returns_the_answer(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "lobby")
        first = await ann.say("lobby", 6, event="roll", key="k")
        assert await ann.say("lobby", 6, event="roll", key="k") == first
        assert ann.messages() == [6]

    async def test_an_exit_is_the_handlers_own(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "lobby")
        error = await refused(RoomsError, ann.say("lobby", 1, event="exit"))
        assert error.code == "internal_error"
        await ann.say("lobby", "fine")
        assert ann.messages() == ["fine"]

    async def test_what_the_server_says_is_asked_of_nobody(self, node: Node) -> None:
        ann = await Client.named(node, "ann", "lobby")
        await node.services.publish(
            "chat", "lobby", "refuse", event="message", to=None, state=False, volatile=False
        )
        assert ann.messages() == ["refuse"]


# Two processes -----------------------------------------------------------------------------------


@pytest.fixture
async def kept(chat: Application) -> Room:
    """A room that any number of processes share."""
    return await Room.objects.acreate(application=chat, name="kept", history="database")


@pytest.mark.usefixtures("kept")
class TestTwoProcesses:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recovery, "GAP_SECONDS", 0)

    async def pair(self, make_node: MakeEngine) -> tuple[Client, Client]:
        engines = await make_node(), await make_node()
        return await Client.named(engines[0], "ann", "kept"), await Client.named(engines[1], "bob", "kept")

    async def unheard(self, wire: Wire, speaker: Client, *numbers: int) -> None:
        """Say these while every hint gets lost."""
        wire.loses = lambda group, message: True
        for number in numbers:
            await speaker.say("kept", number)
        await speaker.node.context.broker.flush()
        wire.loses = lambda group, message: False

    async def test_what_one_says_the_other_hears_in_order(self, make_node: MakeEngine) -> None:
        ann, bob = await self.pair(make_node)

        async def speak(client: Client, who: str) -> None:
            for number in range(30):
                await client.say("kept", [who, number])

        await asyncio.gather(speak(ann, "ann"), speak(bob, "bob"))
        for client in (ann, bob):
            await client.until(lambda client=client: len(client.messages()) >= 60)
            assert [each["seq"] for each in client.told("message")] == list(range(1, 61))
        assert ann.messages() == bob.messages()

    async def test_a_lost_hint_is_fetched_when_the_next_one_comes(
        self, make_node: MakeEngine, wire: Wire
    ) -> None:
        ann, bob = await self.pair(make_node)
        await ann.say("kept", 1)
        await bob.until(lambda: bob.messages() == [1])
        await self.unheard(wire, ann, 2, 3)
        await ann.say("kept", 4)
        await bob.until(lambda: len(bob.messages()) == 4)
        assert bob.messages() == ann.messages() == [1, 2, 3, 4]

    async def test_the_last_hint_of_all_is_missed_when_positions_are_compared(
        self, make_node: MakeEngine, wire: Wire
    ) -> None:
        ann, bob = await self.pair(make_node)
        await ann.say("kept", 1)
        await bob.until(lambda: bob.messages() == [1])
        await self.unheard(wire, ann, 2, 3)
        await bob.node.recovery.check()
        await bob.until(lambda: bob.messages() == [1, 2, 3])

    async def test_positions_that_agree_ask_for_no_messages(
        self, make_node: MakeEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ann, bob = await self.pair(make_node)
        await ann.say("kept", 1)
        await bob.until(lambda: bob.messages() == [1])
        monkeypatch.setattr(bob.node.context.histories["database"], "messages_after", None)
        await bob.node.recovery.check()
        await bob.node.context.tasks.drain()
        assert bob.messages() == [1]

    async def test_what_was_lost_and_is_not_kept_any_more_is_not_passed_over_in_silence(
        self, make_node: MakeEngine, wire: Wire, kept: Room
    ) -> None:
        ann, bob = await self.pair(make_node)
        await self.unheard(wire, ann, 1)
        await kept.messages.all().adelete()
        await bob.node.recovery.check()
        await bob.node.context.tasks.drain()
        await ann.say("kept", 2)
        await ann.node.context.broker.flush()
        assert (ann.closed, bob.closed) == (None, CloseCode.RESYNC)
        assert bob.messages() == []

    async def test_the_own_next_message_finds_the_gap_too_and_its_answer_comes_first(
        self, make_node: MakeEngine, wire: Wire
    ) -> None:
        ann, bob = await self.pair(make_node)
        wire.loses = lambda group, message: True
        await ann.say("kept", 1)
        await ann.node.context.broker.flush()
        answer = await bob.say("kept", 2)
        assert answer["seq"] == 2
        await bob.until(lambda: bob.messages() == [1, 2])
        kinds = [
            frame["type"]
            for frame in bob.heard
            if frame["type"] == "message" or "seq" in frame.get("data", {})
        ]
        assert kinds == ["reply", "message", "message"]

    async def test_doubled_hints_are_told_once(self, make_node: MakeEngine, wire: Wire) -> None:
        ann, bob = await self.pair(make_node)
        for number in range(3):
            await ann.say("kept", number)
        await ann.node.context.broker.flush()
        for group, frames in [each for each in wire.sent if each[0].startswith("room.")]:
            await wire.group_send(
                group, {"type": "rooms.relay", "node": "x", "group": group, "frames": frames}
            )
        await ann.say("kept", 3)
        await bob.until(lambda: 3 in bob.messages())
        assert bob.messages() == [0, 1, 2, 3]

    async def test_what_history_keeps_no_longer_is_not_passed_over_in_silence(
        self, make_node: MakeEngine, wire: Wire, kept: Room
    ) -> None:
        ann, bob = await self.pair(make_node)
        wire.loses = lambda group, message: True
        for number in (1, 2):
            await ann.say("kept", number)
        await ann.node.context.broker.flush()
        await Message.objects.all().adelete()
        wire.loses = lambda group, message: False
        await ann.say("kept", 3)
        await bob.until(lambda: bob.closed == CloseCode.RESYNC)
        assert (ann.closed, bob.messages()) == (None, [])

    async def test_a_hint_for_some_reaches_only_them(self, make_node: MakeEngine) -> None:
        ann, bob = await self.pair(make_node)
        eve = await Client.named(bob.node, "eve", "kept")
        # Presence in memory is each process's own: ann is found where she is.
        await ann.node.context.presence.add(
            ann.connection.memberships["kept"].room.key, bob.connection.id, bob.connection.user
        )
        await ann.say("kept", "psst", to="bob")
        await ann.say("kept", "all")
        await bob.until(lambda: "all" in bob.messages())
        await eve.until(lambda: "all" in eve.messages())
        assert (bob.messages(), eve.messages()) == (["psst", "all"], ["all"])


async def test_a_gap_is_fetched_after_the_answers_of_what_it_holds(node: Node, kept: Room) -> None:
    """A fetch may read what this process has just committed: its sender is still answered first."""
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob", "kept")
    history = node.context.histories["database"]
    assert isinstance(history, DatabaseHistory)
    live = node.context.registry.cached_room("chat", "kept")
    assert live is not None

    async def fetch() -> None:
        for each in await history.messages_after(live.config, 0):
            node.context.hub.group_send(live.key, each)

    await asyncio.gather(*(each for n in range(10) for each in (ann.say("kept", n), fetch())))
    frames = [
        frame
        for frame in ann.told("reply", "message")
        if frame["type"] == "message" or "seq" in frame["data"]
    ]
    for n in range(10):
        answer = next(i for i, f in enumerate(frames) if f["type"] == "reply" and f["data"]["seq"] == n + 1)
        copy = next(i for i, f in enumerate(frames) if f["type"] == "message" and f["seq"] == n + 1)
        assert answer < copy
    assert bob.messages() == list(range(10))
