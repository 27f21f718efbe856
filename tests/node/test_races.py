"""Joins, logins and messages while something else happens: a removal, a ban, a refusal, the same again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from django.contrib.auth.models import User

from rooms import api
from rooms.extensions import ConnectionEvent, Extension, JoinEvent, LeaveEvent, MessageEvent, message
from rooms.histories import Snapshot
from rooms.histories.memory import MemoryHistory
from rooms.hub.config import RoomConfig
from rooms.models import Application, Ban, Room
from rooms.node import permissions
from rooms.node.node import Node
from rooms.protocol.commands import CloseRoom, CreateRoom, Join, Leave, Login, Subscribe
from rooms.protocol.errors import (
    BadPassword,
    Banned,
    CloseCode,
    NameTaken,
    NotMember,
    Rejected,
    RoomFull,
    Unavailable,
)
from rooms.protocol.types import Position
from tests.node.clients import PATIENCE, Client, Install, MakeEngine, present, refused, soon

pytestmark = pytest.mark.database


async def again(node: Node, client: Client) -> Client:
    """The same user on another connection, perhaps of another process."""
    token = (await client.ask(Login()))["token"]
    other = Client(node)
    await other.connect()
    await other.ask(Login(token=token))
    return other


class Gate(Extension):
    """The application's: holds up Bob, and Eve the first time, whom it then refuses."""

    reached: ClassVar[asyncio.Event]
    opened: ClassVar[asyncio.Event]
    calls: ClassVar[list[str]]

    async def on_login(self, event: ConnectionEvent) -> None:
        if event.user is not None and event.user.name == "late":
            await self._wait()

    async def on_join(self, event: JoinEvent) -> None:
        self.calls.append(f"{'listen' if event.subscriber else 'join'} {event.user.name}")
        if event.user.name == "bob" or (event.user.name == "eve" and not self.reached.is_set()):
            await self._wait()
        if event.user.name == "eve":
            raise Rejected("Not you, Eve.")

    async def on_leave(self, event: LeaveEvent) -> None:
        self.calls.append(f"leave {event.user.name}")

    async def _wait(self) -> None:
        self.reached.set()
        await self.opened.wait()


@pytest.fixture
async def gate(
    chat: Application, installed: Install, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[type[Gate]]:
    monkeypatch.setattr(Gate, "reached", asyncio.Event(), raising=False)
    monkeypatch.setattr(Gate, "opened", asyncio.Event(), raising=False)
    monkeypatch.setattr(Gate, "calls", [], raising=False)
    chat.extension = installed(Gate)
    await chat.asave()
    yield Gate
    Gate.opened.set()


def told_of(client: Client, name: str) -> list[str]:
    """Whether this client was told that somebody joined and left, in order."""
    return [frame["type"] for frame in client.told("joined", "left") if frame["user"]["name"] == name]


# Where the numbers stand -------------------------------------------------------------------------


async def test_a_listener_who_may_not_become_a_member_goes_on_hearing_what_has_numbers(
    node: Node,
) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(CreateRoom(room="small", max_members=1))
    await ann.ask(Join(room="small"))
    await bob.ask(Subscribe(room="small"))
    await ann.say("small", 1)
    # She still counts as a member, and Bob is the only one here who hears the room.
    ann.disconnect()
    await node.context.tasks.drain()
    await refused(RoomFull, bob.ask(Join(room="small")))
    for number in (2, 3):
        await api.apublish("chat", "small", number)
    assert bob.messages() == [1, 2, 3]
    assert [frame["seq"] for frame in bob.told("message")] == [1, 2, 3]


@pytest.mark.parametrize("where", ["application", "room"])
async def test_a_history_that_is_kept_elsewhere_begins_anew_for_everybody(
    node: Node, chat: Application, where: str
) -> None:
    row = await Room.objects.acreate(application=chat, name="lobby")
    before = [await Client.named(node, name, "lobby") for name in ("ann", "bob")]
    for number in range(3):
        await before[0].say("lobby", number)
    changed = chat if where == "application" else row
    changed.history = "database"
    await changed.asave()
    await node.context.tasks.drain()
    assert [client.closed for client in before] == [CloseCode.RESYNC] * 2
    # Before the sockets of the others are gone.
    eve = await Client.named(node, "eve")
    data = await eve.ask(Join(room="lobby"))
    assert (data["messages"], data["position"]["seq"]) == ([], 0)
    answers = [await eve.say("lobby", text) for text in ("a", "b", "c", "d")]
    for client in before:
        client.disconnect()
    answers.append(await eve.say("lobby", "e"))
    assert [answer["seq"] for answer in answers] == [1, 2, 3, 4, 5]
    assert [(frame["seq"], frame["data"]) for frame in eve.told("message")] == list(enumerate("abcde", 1))


# A room that is closed, and made anew, meanwhile ---------------------------------------------------


async def made_anew(ann: Client) -> None:
    """The room is closed; at once there is another of its name, with a password."""
    await ann.ask(CloseRoom(room="den"))
    # Not until everything has settled: the room's lane may be taken by the one who waits.
    await ann.until(lambda: ann.told("removed"))
    await ann.ask(CreateRoom(room="den", password="sesame"))
    await ann.ask(Join(room="den"))


async def check_that_there_is_no_ghost(ann: Client, bob: Client) -> None:
    await refused(NotMember, bob.say("den", "boo"))
    await ann.say("den", "secret")
    await ann.node.context.tasks.drain()
    assert ann.messages() == ["secret"]
    assert bob.messages() == []
    assert await present(ann, "den") == ["ann"]
    assert "den" not in bob.connection.memberships
    groups = [group for group in ann.active_groups(node) if group.startswith("room.")]
    assert len(groups) == 1
    assert bob.connection not in ann.node.context.hub.members(groups[0])


async def test_a_room_made_anew_during_on_join_asks_for_its_own_password(
    node: Node, gate: type[Gate]
) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(CreateRoom(room="den"))
    await ann.ask(Join(room="den"))
    joining = asyncio.ensure_future(bob.ask(Join(room="den")))
    await soon(gate.reached)
    await made_anew(ann)
    gate.opened.set()
    await refused(BadPassword, joining)
    await check_that_there_is_no_ghost(ann, bob)


async def test_a_room_made_anew_during_on_join_lets_in_who_has_its_password(
    node: Node, gate: type[Gate]
) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(CreateRoom(room="den"))
    await ann.ask(Join(room="den"))
    joining = asyncio.ensure_future(bob.ask(Join(room="den", password="sesame")))
    await soon(gate.reached)
    await made_anew(ann)
    gate.opened.set()
    data = await joining
    assert [user["name"] for user in data["members"]] == ["ann", "bob"]
    await bob.say("den", "hi")
    await node.context.tasks.drain()
    assert ann.messages() == bob.messages() == ["hi"]
    assert told_of(ann, "bob") == ["joined"]
    assert await present(ann, "den") == ["ann", "bob"]


async def test_whoever_was_let_into_a_room_that_went_is_let_out_of_it(node: Node, gate: type[Gate]) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(CreateRoom(room="den"))
    await ann.ask(Join(room="den"))
    joining = asyncio.ensure_future(bob.ask(Join(room="den")))
    await soon(gate.reached)
    await made_anew(ann)
    gate.opened.set()
    await refused(BadPassword, joining)
    await node.context.tasks.drain()
    assert gate.calls.count("leave bob") == gate.calls.count("join bob")


async def test_a_room_that_goes_while_the_bus_is_told_of_a_member(
    node: Node, gate: type[Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.opened.set()
    subscribe, reached, opened = node.context.broker.subscribe, asyncio.Event(), asyncio.Event()

    async def slow(group: str) -> None:
        if not reached.is_set():
            reached.set()
            await opened.wait()
        await subscribe(group)

    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(CreateRoom(room="den"))
    await ann.ask(Join(room="den"))
    monkeypatch.setattr(node.context.broker, "subscribe", slow)
    joining = asyncio.ensure_future(bob.ask(Join(room="den")))
    await soon(reached)
    await made_anew(ann)
    await node.context.tasks.drain()
    opened.set()
    await refused(BadPassword, joining)
    await check_that_there_is_no_ghost(ann, bob)
    assert told_of(ann, "bob") == []
    assert gate.calls.count("leave bob") == gate.calls.count("join bob") == 1


async def test_a_room_made_anew_during_the_password_check_checks_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, opened, check = asyncio.Event(), threading.Event(), permissions.check_room_password
    loop = asyncio.get_running_loop()

    def slow(room: RoomConfig, password: str | None) -> None:
        loop.call_soon_threadsafe(reached.set)
        opened.wait(PATIENCE)
        check(room, password)

    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(CreateRoom(room="den", password="open"))
    await ann.ask(Join(room="den"))
    monkeypatch.setattr(permissions, "check_room_password", slow)
    joining = asyncio.ensure_future(bob.ask(Join(room="den", password="open")))
    await soon(reached)
    await made_anew(ann)
    opened.set()
    await refused(BadPassword, joining)
    await check_that_there_is_no_ghost(ann, bob)


# The last one goes meanwhile -----------------------------------------------------------------------


async def test_who_comes_in_as_the_last_one_goes_hears_other_processes(
    make_node: MakeEngine, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await make_node(), await make_node()
    ann, bob = await Client.named(here, "ann", "lobby"), await Client.named(here, "bob")
    eve = await Client.named(there, "eve", "lobby")
    subscribe = here.context.broker.subscribe

    async def and_she_goes(group: str) -> None:
        await subscribe(group)
        if ann.connection in here.connections:
            ann.disconnect()
            await here.context.tasks.drain()

    monkeypatch.setattr(here.context.broker, "subscribe", and_she_goes)
    await bob.ask(Join(room="lobby"))
    await eve.say("lobby", "hi", volatile=True)
    await bob.until(lambda: bob.messages() == ["hi"])


# A ban that comes meanwhile ------------------------------------------------------------------------


async def banned(node: Node, chat: Application, guest: str) -> None:
    """A ban from the lobby is saved, and read again."""
    row = await Room.objects.aget(name="lobby")
    await Ban.objects.acreate(application=chat, room=row, guest=guest)
    live = node.context.registry.room_by_id(row.pk)
    assert live is not None
    await node.context.registry.reload_room(live)
    assert live.config.bans


async def test_a_ban_that_is_saved_during_on_join_keeps_out(
    node: Node, chat: Application, gate: type[Gate]
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    joining = asyncio.ensure_future(bob.ask(Join(room="lobby")))
    await soon(gate.reached)
    await banned(node, chat, "bob")
    gate.opened.set()
    await refused(Banned, joining)
    await node.context.tasks.drain()
    await refused(NotMember, bob.say("lobby", "boo"))
    await ann.say("lobby", "unheard")
    assert (ann.messages(), bob.messages()) == (["unheard"], [])
    assert await present(ann, "lobby") == ["ann"]


async def test_whoever_was_kept_out_is_not_told_to_have_left(
    node: Node, chat: Application, gate: type[Gate]
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    joining = asyncio.ensure_future(bob.ask(Join(room="lobby")))
    await soon(gate.reached)
    await banned(node, chat, "bob")
    gate.opened.set()
    await refused(Banned, joining)
    await node.context.tasks.drain()
    told = told_of(ann, "bob")
    assert told == ["joined", "left"] * (len(told) // 2)
    assert gate.calls.count("leave bob") == gate.calls.count("join bob")


async def test_a_ban_that_is_saved_during_on_login_keeps_out(
    node: Node, chat: Application, gate: type[Gate]
) -> None:
    client = Client(node)
    await client.connect()
    logging_in = asyncio.ensure_future(client.ask(Login(name="late")))
    await soon(gate.reached)
    await Ban.objects.acreate(application=chat, guest="late")
    await node.context.tasks.drain()
    gate.opened.set()
    await refused(Banned, logging_in)
    await node.context.tasks.drain()
    assert client.connection.user is None
    assert await node.context.presence.counts([f"application.{chat.pk}"]) == [0]


# From listener to member ---------------------------------------------------------------------------


class Failing(MemoryHistory):
    """Does not answer the next so many questions for the past."""

    failures = 0

    async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        if self.failures:
            self.failures -= 1
            raise Unavailable("The database does not answer.")
        return await super().snapshot(room, since, limit)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("listens", [True, False])
async def test_a_join_that_failed_and_is_tried_again_is_told_as_what_it_was(
    node: Node, gate: type[Gate], at_once: bool, listens: bool
) -> None:
    history = Failing()
    node.context.histories["memory"] = history  # type: ignore[index]
    gate.opened.set()
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    if listens:
        await bob.ask(Subscribe(room="lobby"))
    history.failures = 1
    await refused(Unavailable, bob.ask(Join(room="lobby")))
    if not at_once:
        await node.context.tasks.drain()
        await ann.say("lobby", "still heard")
        assert bob.messages() == (["still heard"] if listens else [])
        assert await present(ann, "lobby") == ["ann"]
        await refused(NotMember, bob.say("lobby", "no member"))
    await bob.ask(Join(room="lobby"))
    await node.context.tasks.drain()
    assert await present(ann, "lobby") == ["ann", "bob"]
    told = told_of(ann, "bob")
    # Told to be here: each coming that failed was taken back.
    assert told == [*["joined", "left"] * (len(told) // 2), "joined"]
    assert gate.calls.count("join bob") == gate.calls.count("leave bob") + 1
    await bob.say("lobby", "hi")
    assert ann.messages()[-1] == "hi"
    await bob.ask(Leave(room="lobby"))
    await node.context.tasks.drain()
    assert told_of(ann, "bob") == [*told, "left"]
    assert gate.calls.count("join bob") == gate.calls.count("leave bob")
    assert await present(ann, "lobby") == ["ann"]


# Two processes -------------------------------------------------------------------------------------


async def test_whom_one_process_refuses_does_not_slip_in_through_another(
    make_node: MakeEngine, gate: type[Gate], redis_url: str
) -> None:
    presence = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": redis_url}}
    here, there = await make_node(presence=presence), await make_node(presence=presence)
    ann, eve = await Client.named(there, "ann", "lobby"), await Client.named(here, "eve")
    double = await again(there, eve)
    joining = asyncio.ensure_future(eve.ask(Join(room="lobby")))
    await soon(gate.reached)
    coming_too = asyncio.ensure_future(double.ask(Join(room="lobby")))
    gate.opened.set()
    for each in (joining, coming_too):
        await refused(Rejected, each)
    for node in (here, there):
        await node.context.tasks.drain()
    assert await present(ann, "lobby") == ["ann"]
    assert told_of(ann, "eve") == []
    for client in (eve, double):
        await refused(NotMember, client.say("lobby", "boo"))


# Keys and extensions -------------------------------------------------------------------------------


class Dice(Extension):
    """Takes ``roll``; lets nobody say the same thing twice."""

    rolls: ClassVar[list[Any]]
    said: ClassVar[list[Any]]
    reached: ClassVar[asyncio.Event]
    opened: ClassVar[asyncio.Event]

    @message("roll")
    async def roll(self, event: MessageEvent) -> None:
        self.rolls.append(event.data)
        self.reached.set()
        await self.opened.wait()
        if event.data == "bad":
            raise Rejected("No such dice.")
        event.reply({"rolled": len(self.rolls)})
        assert event.room is not None
        await event.room.publish("rolled", len(self.rolls))

    async def on_message(self, event: MessageEvent) -> None:
        if event.data in self.said:
            raise Rejected("You have said that.")
        self.said.append(event.data)


@pytest.fixture
async def dice(
    chat: Application, installed: Install, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[type[Dice]]:
    for name, value in (
        *(("rolls", []), ("said", [])),
        *(("reached", asyncio.Event()), ("opened", asyncio.Event())),
    ):
        monkeypatch.setattr(Dice, name, value, raising=False)
    chat.extension, chat.history = installed(Dice), "database"
    await chat.asave()
    yield Dice
    Dice.opened.set()


async def test_a_key_sent_twice_at_the_same_moment_runs_its_taker_once(node: Node, dice: type[Dice]) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    double = await again(node, ann)
    await double.ask(Join(room="lobby"))
    asking = [
        asyncio.ensure_future(client.say("lobby", 6, event="roll", key="k")) for client in (ann, double, ann)
    ]
    await soon(dice.reached)
    dice.opened.set()
    answers = await asyncio.gather(*asking)
    assert answers == [answers[0]] * 3
    assert answers[0]["rolled"] == 1
    assert await double.say("lobby", 6, event="roll", key="k") == answers[0]
    assert dice.rolls == [6]
    assert [frame["event"] for frame in bob.told("message")] == ["rolled"]
    # The key is its sender's.
    assert (await bob.say("lobby", 5, event="roll", key="k"))["rolled"] == 2


async def test_a_key_whose_message_was_refused_has_not_been_used(node: Node, dice: type[Dice]) -> None:
    ann = await Client.named(node, "ann", "lobby")
    asking = [
        asyncio.ensure_future(ann.say("lobby", data, event="roll", key="k")) for data in ("bad", "good")
    ]
    await soon(dice.reached)
    dice.opened.set()
    first, second = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(first, Rejected)
    assert second["rolled"] == 2  # type: ignore[index]
    assert dice.rolls == ["bad", "good"]


@pytest.mark.usefixtures("dice")
async def test_what_is_sent_again_gets_its_first_answer_even_if_it_would_be_refused_now(
    make_node: MakeEngine,
) -> None:
    here, there = await make_node(), await make_node()
    ann, bob = await Client.named(here, "ann", "lobby"), await Client.named(here, "bob", "lobby")
    first = await ann.say("lobby", "hi", key="k")
    assert await ann.say("lobby", "hi", key="k") == first
    # After the process that knew of it is gone.
    elsewhere = await again(there, ann)
    await elsewhere.ask(Join(room="lobby"))
    assert await elsewhere.say("lobby", "hi", key="k") == first
    await refused(Rejected, elsewhere.say("lobby", "hi", key="another"))
    assert bob.messages() == ["hi"]


# Names of registered users -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registered", "name"),
    [
        *(("José", "JOSÉ"), ("José", "josé"), ("JOSÉ", "joSé"), ("Éric", "éric"), ("éric", "ÉRIC")),
        *(("Jose\u0301", "JOSÉ"), ("Ωmega", "ωMEGA"), ("дмитрий", "Дмитрий"), ("ann", "ＡＮＮ")),
        # One letter to two: the same name, as everywhere here.
        *(("Straße", "STRASSE"), ("strasse", "Straße")),
    ],
)
async def test_a_registered_name_is_no_guests_in_other_letters_either(
    node: Node, registered: str, name: str
) -> None:
    await User.objects.acreate_user(registered)
    client = Client(node)
    await client.connect()
    assert not (await refused(NameTaken, client.ask(Login(name=name)))).retry


@pytest.mark.parametrize("name", ["Jose", "Josè", "Josée", "José.", "ÉRIC", ".....", "Jos."])
async def test_a_name_that_only_looks_like_a_registered_one_is_free(node: Node, name: str) -> None:
    for registered in ("José", "Érik", "abcdé"):
        await User.objects.acreate_user(registered)
    client = Client(node)
    await client.connect()
    assert (await client.ask(Login(name=name)))["user"]["name"] == name


async def test_of_two_first_joiners_the_one_with_the_older_past_misses_nothing(
    make_node: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two come in here at once while somebody speaks elsewhere. The one who asked the history first is
    answered last: what was said between the two answers is still to be told to them."""
    here, there = await make_node(), await make_node()
    # In tests each engine has a memory of its own; one database is what processes share.
    here.context.histories["memory"]._logs = there.context.histories["memory"]._logs  # type: ignore[attr-defined]
    speaker = await Client.named(there, "speaker", "lobby")
    slow, quick = await Client.named(here, "slow"), await Client.named(here, "quick")
    asked, answered = asyncio.Event(), asyncio.Event()
    history = here.context.histories["memory"]
    snapshot = history.snapshot

    async def in_time(room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        past = await snapshot(room, since, limit)
        if not asked.is_set():
            asked.set()
            await soon(answered)
        return past

    monkeypatch.setattr(history, "snapshot", in_time)
    joining = asyncio.create_task(slow.ask(Join(room="lobby")))
    await soon(asked)
    for number in range(3):
        await speaker.say("lobby", number)
    await quick.ask(Join(room="lobby"))
    answered.set()
    known = [message["data"] for message in (await joining)["messages"]]
    await speaker.say("lobby", 3)
    await slow.until(lambda: 3 in slow.messages())
    assert known + slow.messages() == [0, 1, 2, 3]
