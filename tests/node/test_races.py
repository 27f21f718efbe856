"""Joins, logins and messages during a room's removal, a ban, a refusal or the same command again."""

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
from tests.node.clients import (
    PATIENCE,
    Client,
    Install,
    MakeNode,
    active_groups,
    error_of,
    member_names,
    wait_for,
)

pytestmark = pytest.mark.database


async def again(node: Node, client: Client) -> Client:
    """Return the same user on another connection, perhaps of another process."""
    token = (await client.request(Login()))["token"]
    other = Client(node)
    await other.connect()
    await other.request(Login(token=token))
    return other


class Gate(Extension):
    """The application's extension: delays Bob, and Eve the first time; refuses Eve."""

    reached: ClassVar[asyncio.Event]
    opened: ClassVar[asyncio.Event]
    calls: ClassVar[list[str]]

    async def on_login(self, event: ConnectionEvent) -> None:
        if event.user is not None and event.user.name == "late":
            await self._wait()

    async def on_join(self, event: JoinEvent) -> None:
        self.calls.append(f"{'subscribe' if event.subscriber else 'join'} {event.user.name}")
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
    chat: Application, install_extension: Install, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[type[Gate]]:
    monkeypatch.setattr(Gate, "reached", asyncio.Event(), raising=False)
    monkeypatch.setattr(Gate, "opened", asyncio.Event(), raising=False)
    monkeypatch.setattr(Gate, "calls", [], raising=False)
    chat.extension = install_extension(Gate)
    await chat.asave()
    yield Gate
    Gate.opened.set()


def events_about(client: Client, name: str) -> list[str]:
    """Return which joined and left events about a user this client received, in order."""
    return [frame["type"] for frame in client.received("joined", "left") if frame["user"]["name"] == name]


# Sequence numbers --------------------------------------------------------------------------------


async def test_a_subscriber_whose_join_is_refused_still_receives_numbered_messages(
    node: Node,
) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(CreateRoom(room="small", max_members=1))
    await ann.request(Join(room="small"))
    await bob.request(Subscribe(room="small"))
    await ann.send("small", 1)
    # Ann still counts as a member, and Bob is the only one that receives events of the room.
    ann.disconnect()
    await node.context.tasks.drain()
    await error_of(RoomFull, bob.request(Join(room="small")))
    for number in (2, 3):
        await api.apublish("chat", "small", number)
    assert bob.messages() == [1, 2, 3]
    assert [frame["seq"] for frame in bob.received("message")] == [1, 2, 3]


@pytest.mark.parametrize("where", ["application", "room"])
async def test_another_history_numbers_the_messages_anew_for_all_clients(
    node: Node, chat: Application, where: str
) -> None:
    row = await Room.objects.acreate(application=chat, name="lobby")
    before = [await Client.named(node, name, "lobby") for name in ("ann", "bob")]
    for number in range(3):
        await before[0].send("lobby", number)
    changed = chat if where == "application" else row
    changed.history = "database"
    await changed.asave()
    await node.context.tasks.drain()
    assert [client.closed for client in before] == [CloseCode.RESYNC] * 2
    # While the sockets of the others are still open.
    eve = await Client.named(node, "eve")
    data = await eve.request(Join(room="lobby"))
    assert (data["messages"], data["position"]["seq"]) == ([], 0)
    answers = [await eve.send("lobby", text) for text in ("a", "b", "c", "d")]
    for client in before:
        client.disconnect()
    answers.append(await eve.send("lobby", "e"))
    assert [answer["seq"] for answer in answers] == [1, 2, 3, 4, 5]
    assert [(frame["seq"], frame["data"]) for frame in eve.received("message")] == list(enumerate("abcde", 1))


# A room that is closed and created again meanwhile ------------------------------------------------


async def recreate(ann: Client) -> None:
    """Close the room, and create another of the same name at once, with a password."""
    await ann.request(CloseRoom(room="den"))
    # Not until all tasks are done: the executor of the room may be occupied by the waiting handler.
    await ann.until(lambda: ann.received("removed"))
    await ann.request(CreateRoom(room="den", password="sesame"))
    await ann.request(Join(room="den"))


async def check_only_ann_is_a_member(ann: Client, bob: Client) -> None:
    await error_of(NotMember, bob.send("den", "boo"))
    await ann.send("den", "secret")
    await ann.node.context.tasks.drain()
    assert ann.messages() == ["secret"]
    assert bob.messages() == []
    assert await member_names(ann, "den") == ["ann"]
    assert "den" not in bob.connection.memberships
    groups = [key for key in active_groups(ann.node) if key.startswith("room.")]
    assert len(groups) == 1
    room = ann.node.context.registry.room_by_key(groups[0])
    assert room is not None
    assert bob.connection not in room.members


async def test_a_room_recreated_during_on_join_requires_its_own_password(
    node: Node, gate: type[Gate]
) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(CreateRoom(room="den"))
    await ann.request(Join(room="den"))
    joining = asyncio.ensure_future(bob.request(Join(room="den")))
    await wait_for(gate.reached)
    await recreate(ann)
    gate.opened.set()
    await error_of(BadPassword, joining)
    await check_only_ann_is_a_member(ann, bob)


async def test_a_room_recreated_during_on_join_accepts_its_own_password(node: Node, gate: type[Gate]) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(CreateRoom(room="den"))
    await ann.request(Join(room="den"))
    joining = asyncio.ensure_future(bob.request(Join(room="den", password="sesame")))
    await wait_for(gate.reached)
    await recreate(ann)
    gate.opened.set()
    data = await joining
    assert [user["name"] for user in data["members"]] == ["ann", "bob"]
    await bob.send("den", "hi")
    await node.context.tasks.drain()
    assert ann.messages() == bob.messages() == ["hi"]
    assert events_about(ann, "bob") == ["joined"]
    assert await member_names(ann, "den") == ["ann", "bob"]


async def test_on_leave_follows_on_join_in_a_room_that_was_removed_meanwhile(
    node: Node, gate: type[Gate]
) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(CreateRoom(room="den"))
    await ann.request(Join(room="den"))
    joining = asyncio.ensure_future(bob.request(Join(room="den")))
    await wait_for(gate.reached)
    await recreate(ann)
    gate.opened.set()
    await error_of(BadPassword, joining)
    await node.context.tasks.drain()
    assert gate.calls.count("leave bob") == gate.calls.count("join bob")


async def test_a_room_removed_while_a_join_subscribes_to_it_is_not_joined(
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
    await ann.request(CreateRoom(room="den"))
    await ann.request(Join(room="den"))
    monkeypatch.setattr(node.context.broker, "subscribe", slow)
    joining = asyncio.ensure_future(bob.request(Join(room="den")))
    await wait_for(reached)
    await recreate(ann)
    await node.context.tasks.drain()
    opened.set()
    await error_of(BadPassword, joining)
    await check_only_ann_is_a_member(ann, bob)
    assert events_about(ann, "bob") == []
    assert gate.calls.count("leave bob") == gate.calls.count("join bob") == 1


async def test_a_room_recreated_during_the_password_check_checks_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, opened, check = asyncio.Event(), threading.Event(), permissions.check_room_password
    loop = asyncio.get_running_loop()

    def slow(room: RoomConfig, password: str | None) -> None:
        loop.call_soon_threadsafe(reached.set)
        opened.wait(PATIENCE)
        check(room, password)

    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(CreateRoom(room="den", password="open"))
    await ann.request(Join(room="den"))
    monkeypatch.setattr(permissions, "check_room_password", slow)
    joining = asyncio.ensure_future(bob.request(Join(room="den", password="open")))
    await wait_for(reached)
    await recreate(ann)
    opened.set()
    await error_of(BadPassword, joining)
    await check_only_ann_is_a_member(ann, bob)


# The last member leaves meanwhile ----------------------------------------------------------------


async def test_a_client_that_joins_as_the_last_member_leaves_receives_events_of_other_processes(
    make_node: MakeNode, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await make_node(), await make_node()
    ann, bob = await Client.named(here, "ann", "lobby"), await Client.named(here, "bob")
    eve = await Client.named(there, "eve", "lobby")
    subscribe = here.context.broker.subscribe

    async def and_ann_leaves(group: str) -> None:
        await subscribe(group)
        if ann.connection in here.connections:
            ann.disconnect()
            await here.context.tasks.drain()

    monkeypatch.setattr(here.context.broker, "subscribe", and_ann_leaves)
    await bob.request(Join(room="lobby"))
    await eve.send("lobby", "hi", volatile=True)
    await bob.until(lambda: bob.messages() == ["hi"])


# A ban meanwhile ---------------------------------------------------------------------------------


async def ban(node: Node, chat: Application, guest: str) -> None:
    """Save a ban from the lobby, and load the room again."""
    row = await Room.objects.aget(name="lobby")
    await Ban.objects.acreate(application=chat, room=row, guest=guest)
    room = node.context.registry.room_by_id(row.pk)
    assert room is not None
    await node.context.registry.reload_room(room)
    assert room.config.bans


async def test_a_ban_saved_during_on_join_refuses_the_join(
    node: Node, chat: Application, gate: type[Gate]
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    joining = asyncio.ensure_future(bob.request(Join(room="lobby")))
    await wait_for(gate.reached)
    await ban(node, chat, "bob")
    gate.opened.set()
    await error_of(Banned, joining)
    await node.context.tasks.drain()
    await error_of(NotMember, bob.send("lobby", "boo"))
    await ann.send("lobby", "not for bob")
    assert (ann.messages(), bob.messages()) == (["not for bob"], [])
    assert await member_names(ann, "lobby") == ["ann"]


async def test_a_refused_join_is_not_announced_as_a_leave(
    node: Node, chat: Application, gate: type[Gate]
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    joining = asyncio.ensure_future(bob.request(Join(room="lobby")))
    await wait_for(gate.reached)
    await ban(node, chat, "bob")
    gate.opened.set()
    await error_of(Banned, joining)
    await node.context.tasks.drain()
    events = events_about(ann, "bob")
    assert events == ["joined", "left"] * (len(events) // 2)
    assert gate.calls.count("leave bob") == gate.calls.count("join bob")


async def test_a_ban_saved_during_on_login_refuses_the_login(
    node: Node, chat: Application, gate: type[Gate]
) -> None:
    client = Client(node)
    await client.connect()
    logging_in = asyncio.ensure_future(client.request(Login(name="late")))
    await wait_for(gate.reached)
    await Ban.objects.acreate(application=chat, guest="late")
    await node.context.tasks.drain()
    gate.opened.set()
    await error_of(Banned, logging_in)
    await node.context.tasks.drain()
    assert client.connection.user is None
    assert await node.context.presence.counts([f"application.{chat.pk}"]) == [0]


# From subscriber to member -----------------------------------------------------------------------


class Failing(MemoryHistory):
    """Fails the next ``failures`` snapshots."""

    failures = 0

    async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        if self.failures:
            self.failures -= 1
            raise Unavailable("The database does not answer.")
        return await super().snapshot(room, since, limit)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("subscriber", [True, False])
async def test_a_failed_join_and_its_retry_are_announced_as_what_they_are(
    node: Node, gate: type[Gate], at_once: bool, subscriber: bool
) -> None:
    history = Failing()
    node.context.histories["memory"] = history
    gate.opened.set()
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    if subscriber:
        await bob.request(Subscribe(room="lobby"))
    history.failures = 1
    await error_of(Unavailable, bob.request(Join(room="lobby")))
    if not at_once:
        await node.context.tasks.drain()
        await ann.send("lobby", "for subscribers")
        assert bob.messages() == (["for subscribers"] if subscriber else [])
        assert await member_names(ann, "lobby") == ["ann"]
        await error_of(NotMember, bob.send("lobby", "no member"))
    await bob.request(Join(room="lobby"))
    await node.context.tasks.drain()
    assert await member_names(ann, "lobby") == ["ann", "bob"]
    events = events_about(ann, "bob")
    # The last event is right: each failed join that was announced was taken back.
    assert events == [*["joined", "left"] * (len(events) // 2), "joined"]
    assert gate.calls.count("join bob") == gate.calls.count("leave bob") + 1
    await bob.send("lobby", "hi")
    assert ann.messages()[-1] == "hi"
    await bob.request(Leave(room="lobby"))
    await node.context.tasks.drain()
    assert events_about(ann, "bob") == [*events, "left"]
    assert gate.calls.count("join bob") == gate.calls.count("leave bob")
    assert await member_names(ann, "lobby") == ["ann"]


# Two processes -------------------------------------------------------------------------------------


async def test_a_user_refused_in_one_process_cannot_join_in_another_meanwhile(
    make_node: MakeNode, gate: type[Gate], redis_url: str
) -> None:
    presence = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": redis_url}}
    here, there = await make_node(presence=presence), await make_node(presence=presence)
    ann, eve = await Client.named(there, "ann", "lobby"), await Client.named(here, "eve")
    double = await again(there, eve)
    joining = asyncio.ensure_future(eve.request(Join(room="lobby")))
    await wait_for(gate.reached)
    joining_too = asyncio.ensure_future(double.request(Join(room="lobby")))
    gate.opened.set()
    for each in (joining, joining_too):
        await error_of(Rejected, each)
    for node in (here, there):
        await node.context.tasks.drain()
    assert await member_names(ann, "lobby") == ["ann"]
    assert events_about(ann, "eve") == []
    for client in (eve, double):
        await error_of(NotMember, client.send("lobby", "boo"))


# Keys and extensions -------------------------------------------------------------------------------


class Dice(Extension):
    """Handles ``roll``; refuses a message that was sent before."""

    rolls: ClassVar[list[Any]]
    sent: ClassVar[list[Any]]
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
        if event.data in self.sent:
            raise Rejected("This was sent before.")
        self.sent.append(event.data)


@pytest.fixture
async def dice(
    chat: Application, install_extension: Install, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[type[Dice]]:
    for name, value in (
        *(("rolls", []), ("sent", [])),
        *(("reached", asyncio.Event()), ("opened", asyncio.Event())),
    ):
        monkeypatch.setattr(Dice, name, value, raising=False)
    chat.extension, chat.history = install_extension(Dice), "database"
    await chat.asave()
    yield Dice
    Dice.opened.set()


async def test_a_key_sent_twice_at_once_runs_its_handler_once(node: Node, dice: type[Dice]) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    double = await again(node, ann)
    await double.request(Join(room="lobby"))
    sending = [
        asyncio.ensure_future(client.send("lobby", 6, event="roll", key="k")) for client in (ann, double, ann)
    ]
    await wait_for(dice.reached)
    dice.opened.set()
    answers = await asyncio.gather(*sending)
    assert answers == [answers[0]] * 3
    assert answers[0]["rolled"] == 1
    assert await double.send("lobby", 6, event="roll", key="k") == answers[0]
    assert dice.rolls == [6]
    assert [frame["event"] for frame in bob.received("message")] == ["rolled"]
    # Another sender can use the same key.
    assert (await bob.send("lobby", 5, event="roll", key="k"))["rolled"] == 2


async def test_a_key_of_a_refused_message_can_be_used_again(node: Node, dice: type[Dice]) -> None:
    ann = await Client.named(node, "ann", "lobby")
    sending = [
        asyncio.ensure_future(ann.send("lobby", data, event="roll", key="k")) for data in ("bad", "good")
    ]
    await wait_for(dice.reached)
    dice.opened.set()
    first, second = await asyncio.gather(*sending, return_exceptions=True)
    assert isinstance(first, Rejected)
    assert second["rolled"] == 2  # type: ignore[index]
    assert dice.rolls == ["bad", "good"]


@pytest.mark.usefixtures("dice")
async def test_a_repeated_message_gets_its_first_reply_though_it_would_be_refused_now(
    make_node: MakeNode,
) -> None:
    here, there = await make_node(), await make_node()
    ann, bob = await Client.named(here, "ann", "lobby"), await Client.named(here, "bob", "lobby")
    first = await ann.send("lobby", "hi", key="k")
    assert await ann.send("lobby", "hi", key="k") == first
    # From a process that did not receive the first one.
    elsewhere = await again(there, ann)
    await elsewhere.request(Join(room="lobby"))
    assert await elsewhere.send("lobby", "hi", key="k") == first
    await error_of(Rejected, elsewhere.send("lobby", "hi", key="another"))
    assert bob.messages() == ["hi"]


# Names of registered users -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registered", "name"),
    [
        *(("José", "JOSÉ"), ("José", "josé"), ("JOSÉ", "joSé"), ("Éric", "éric"), ("éric", "ÉRIC")),
        *(("Jose\u0301", "JOSÉ"), ("Ωmega", "ωMEGA"), ("дмитрий", "Дмитрий"), ("ann", "ＡＮＮ")),
        # Case folding maps one letter to two.
        *(("Straße", "STRASSE"), ("strasse", "Straße")),
    ],
)
async def test_a_guest_cannot_take_a_registered_name_in_other_letters(
    node: Node, registered: str, name: str
) -> None:
    await User.objects.acreate_user(registered)
    client = Client(node)
    await client.connect()
    assert not (await error_of(NameTaken, client.request(Login(name=name)))).retry


@pytest.mark.parametrize("name", ["Jose", "Josè", "Josée", "José.", "ÉRIC", ".....", "Jos."])
async def test_a_guest_can_take_a_name_that_only_resembles_a_registered_one(node: Node, name: str) -> None:
    for registered in ("José", "Érik", "abcdé"):
        await User.objects.acreate_user(registered)
    client = Client(node)
    await client.connect()
    assert (await client.request(Login(name=name)))["user"]["name"] == name


async def test_of_two_first_joins_the_one_with_the_older_snapshot_misses_no_message(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clients join while messages are sent in another process.

    The first snapshot is returned last: its client still receives the messages between the two.
    """
    here, there = await make_node(), await make_node()
    # Processes share a database; the histories in memory of two nodes share it here.
    here.context.histories["memory"]._logs = there.context.histories["memory"]._logs  # type: ignore[attr-defined]
    sender = await Client.named(there, "sender", "lobby")
    slow, quick = await Client.named(here, "slow"), await Client.named(here, "quick")
    asked, go = asyncio.Event(), asyncio.Event()
    history = here.context.histories["memory"]
    snapshot = history.snapshot

    async def delayed(room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        found = await snapshot(room, since, limit)
        if not asked.is_set():
            asked.set()
            await wait_for(go)
        return found

    monkeypatch.setattr(history, "snapshot", delayed)
    joining = asyncio.create_task(slow.request(Join(room="lobby")))
    await wait_for(asked)
    for number in range(3):
        await sender.send("lobby", number)
    await quick.request(Join(room="lobby"))
    go.set()
    known = [message["data"] for message in (await joining)["messages"]]
    await sender.send("lobby", 3)
    await slow.until(lambda: 3 in slow.messages())
    assert known + slow.messages() == [0, 1, 2, 3]
