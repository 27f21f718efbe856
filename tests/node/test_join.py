"""Coming in and going out: nothing precedes the join's reply, nothing is doubled or missed around it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rooms.extensions import Extension, JoinEvent, LeaveEvent
from rooms.histories import Snapshot
from rooms.histories.memory import MemoryHistory
from rooms.hub.config import RoomConfig
from rooms.hub.connection import Connection
from rooms.hub.hub import Hub
from rooms.models import Application, Ban, Room
from rooms.node.node import Node
from rooms.protocol.commands import CreateRoom, Join, Leave, ListMembers, ReadHistory, Subscribe, Unsubscribe
from rooms.protocol.errors import (
    BadPassword,
    Banned,
    NotLoggedIn,
    NotMember,
    Rejected,
    RoomFull,
    RoomNotFound,
    RoomsError,
    TooManyRooms,
    Unavailable,
)
from rooms.protocol.types import Position
from tests.node.clients import Client, Install, MakeEngine, refused, soon
from tests.node.wires import Wire


def names(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["user"]["name"] for frame in frames]


async def let_grace_pass(node: Node, clock: SimpleNamespace) -> None:
    await node.context.tasks.drain()
    clock.now += 3600
    for action in node.context.delayed.pop_due():
        await action()
    await node.context.tasks.drain()


# The reply ---------------------------------------------------------------------------------------


async def test_the_reply_tells_all_there_is(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    await ann.say("lobby", "one")
    await ann.say("lobby", "two", event="topic", state=True)
    bob = await Client.named(node, "bob")
    data = await bob.ask(Join(room="lobby"))
    assert data["room"] == {
        "name": "lobby",
        "title": "",
        "mode": "open",
        "owner": "ann",
        "max_members": None,
        "you": {"send": True, "moderate": False},
    }
    assert [user["name"] for user in data["members"]] == ["ann", "bob"]
    assert data["count"] == 2
    assert [message["seq"] for message in data["messages"]] == [1, 2]
    assert [message["event"] for message in data["state"]] == ["topic"]
    assert (data["recovered"], data["position"]["seq"]) == (False, 2)


async def test_the_others_hear_of_a_user_once(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    bob = await Client.named(node, "bob", "lobby")
    assert names(ann.told("joined")) == ["bob"]
    assert bob.told("joined") == []
    await bob.ask(Join(room="lobby"))
    assert names(ann.told("joined")) == ["bob"]
    assert bob.told("joined") == []


async def test_joining_again_is_the_same_reply_again(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    await ann.say("lobby", 1)
    position = (await ann.ask(Join(room="lobby", limit=0)))["position"]
    await ann.say("lobby", 2)
    data = await ann.ask(Join(room="lobby", since=Position(**position)))
    assert ([message["data"] for message in data["messages"]], data["recovered"]) == ([2], True)
    assert (data["count"], data["position"]["seq"]) == (1, 2)


@pytest.mark.parametrize(("limit", "count"), [(None, 2), (1, 1), (0, 0), (10**6, 3)])
async def test_how_many_messages_a_join_tells(make_node: MakeEngine, limit: int | None, count: int) -> None:
    node = await make_node(join_history_limit=2, recovery_max_messages=3)
    ann = await Client.named(node, "ann", "lobby")
    for number in range(5):
        await ann.say("lobby", number)
    data = await ann.ask(Join(room="lobby", limit=limit))
    assert len(data["messages"]) == count


async def test_a_list_of_members_that_is_cut_short_shows_the_joiner(make_node: MakeEngine) -> None:
    node = await make_node(join_members_limit=2)
    for name in ("ann", "bob"):
        await Client.named(node, name, "lobby")
    data = await (await Client.named(node, "zoe")).ask(Join(room="lobby"))
    assert [user["name"] for user in data["members"]] == ["ann", "zoe"]
    assert data["count"] == 3


# Around the snapshot -----------------------------------------------------------------------------


class Paused(MemoryHistory):
    """Stops in the middle of a snapshot: before the messages are read, or after."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def _pause(self) -> None:
        self.reached.set()
        await self.go.wait()

    async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        if self.where == "before":
            await self._pause()
        found = await super().snapshot(room, since, limit)
        if self.where == "after":
            await self._pause()
        return found


async def check_a_join_amid_messages(node: Node, where: str) -> None:
    """Messages come before the join, in the middle of its snapshot, and after it."""
    history = Paused(where)
    node.context.histories["memory"] = history  # type: ignore[index]
    room = f"room {where} {len(node.connections)}"
    ann, bob = (
        await Client.named(node, f"ann {room[:20]}", room),
        await Client.named(node, f"bob {room[:20]}"),
    )
    await ann.say(room, 1)
    history.go.clear()
    history.reached.clear()
    joining = asyncio.ensure_future(bob.ask(Join(room=room)))
    await history.reached.wait()
    for number in (2, 3):
        await ann.say(room, number)
    assert [frame for frame in bob.listen() if frame.get("room") == room] == []
    history.go.set()
    data = await joining
    for number in (4, 5):
        await ann.say(room, number)
    of_room = [frame for frame in bob.told("reply", "message", "joined", "left") if is_about(frame, room)]
    assert of_room[0]["type"] == "reply"
    told = [frame["seq"] for frame in data["messages"]] + [
        frame["seq"] for frame in of_room[1:] if frame["type"] == "message"
    ]
    assert told == [1, 2, 3, 4, 5]
    assert data["position"]["seq"] == len(data["messages"])
    assert ann.messages() == [1, 2, 3, 4, 5]


def is_about(frame: dict[str, Any], room: str) -> bool:
    return frame.get("room") == room or frame.get("data", {}).get("room", {}).get("name") == room


@pytest.mark.parametrize("where", ["before", "after"])
async def test_nothing_precedes_the_reply_and_nothing_is_doubled_or_missed(node: Node, where: str) -> None:
    await check_a_join_amid_messages(node, where)


def not_held(connection: Connection) -> None:
    """Broken: pushes overtake the reply."""


def forgotten(hub: Hub, group: str, connection: Connection, position: int) -> None:
    """Broken: what was held is lost."""
    connection._held = None
    connection._bytes = 0


def repeated(hub: Hub, group: str, connection: Connection, position: int) -> None:
    """Broken: what the reply told is told again."""
    connection.uncork()


@pytest.mark.parametrize(
    ("where", "owner", "name", "broken"),
    [
        ("before", Connection, "hold", not_held),
        ("after", Connection, "hold", not_held),
        ("after", Hub, "settle", forgotten),
        ("before", Hub, "settle", repeated),
    ],
)
async def test_the_check_above_catches_broken_joins(
    node: Node, monkeypatch: pytest.MonkeyPatch, where: str, owner: Any, name: str, broken: Any
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError):
        await check_a_join_amid_messages(node, where)


async def test_a_join_that_is_resumed_amid_messages(node: Node) -> None:
    history = Paused("after")
    node.context.histories["memory"] = history  # type: ignore[index]
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    position = (await ann.ask(Join(room="lobby")))["position"]
    await ann.say("lobby", 1)
    history.go.clear()
    history.reached.clear()
    joining = asyncio.ensure_future(bob.ask(Join(room="lobby", since=Position(**position))))
    await history.reached.wait()
    await ann.say("lobby", 2)
    history.go.set()
    data = await joining
    assert (data["recovered"], [each["data"] for each in data["messages"]]) == (True, [1])
    assert bob.messages() == [2]


async def test_many_join_while_many_speak(node: Node) -> None:
    """Whoever comes whenever: position and pushes fit together without a hole or a double."""
    speakers = [await Client.named(node, f"speaker {n}", "lobby") for n in range(3)]
    joiners = [await Client.named(node, f"joiner {n}") for n in range(10)]

    async def speak(client: Client) -> None:
        for number in range(20):
            await client.say("lobby", number)
            await asyncio.sleep(0)

    async def join(client: Client, patience: int) -> dict[str, Any]:
        for _ in range(patience):
            await asyncio.sleep(0)
        data: dict[str, Any] = await client.ask(Join(room="lobby", limit=300))
        return data

    *replies, _, _, _ = await asyncio.gather(
        *(join(client, 4 * n) for n, client in enumerate(joiners)), *map(speak, speakers)
    )
    for client, data in zip(joiners, replies, strict=True):
        told = [each["seq"] for each in [*data["messages"], *client.told("message")]]
        assert told == list(range(1, 61))


# Refusals ----------------------------------------------------------------------------------------


def check_that_nothing_is_left(node: Node, client: Client, room: str) -> None:
    assert room not in client.connection.memberships
    assert client.connection not in node.context.hub.members(
        next(live.key for live in node.context.registry._rooms.values() if live.name == room)
    )


async def test_who_is_not_logged_in(node: Node) -> None:
    client = Client(node)
    await client.connect()
    for asking in (Join(room="lobby"), Leave(room="lobby"), Subscribe(room="lobby")):
        await refused(NotLoggedIn, client.ask(asking))


async def test_a_room_that_is_not_there(node: Node) -> None:
    ann = await Client.named(node, "ann")
    row = await Application.objects.aget()
    row.rooms_on_demand = False
    await row.asave()
    await node.context.tasks.drain()
    await refused(RoomNotFound, ann.ask(Join(room="nowhere")))


async def test_a_full_room_says_so_and_lets_its_own_users_in(node: Node) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(CreateRoom(room="small", max_members=1))
    await ann.ask(Join(room="small"))
    error = await refused(RoomFull, bob.ask(Join(room="small")))
    assert "1 of 1" in error.message
    check_that_nothing_is_left(node, bob, "small")
    # A listener is no member.
    await bob.ask(Subscribe(room="small"))
    await refused(RoomFull, bob.ask(Join(room="small")))
    await ann.say("small", "hi")
    assert bob.messages() == ["hi"]
    await ann.ask(Leave(room="small"))
    await bob.ask(Join(room="small"))


async def test_a_password(node: Node) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(CreateRoom(room="locked", password="sesame"))
    await ann.ask(Join(room="locked"))
    for wrong in (None, "please"):
        await refused(BadPassword, bob.ask(Join(room="locked", password=wrong)))
        await refused(BadPassword, bob.ask(Subscribe(room="locked", password=wrong)))
    check_that_nothing_is_left(node, bob, "locked")
    await bob.ask(Join(room="locked", password="sesame"))
    # In it already: not asked again.
    await bob.ask(Join(room="locked"))


async def test_the_banned(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    room = await Room.objects.select_related("application").aget()
    await Ban.objects.acreate(application=room.application, room=room, guest="BOB")
    await node.context.tasks.drain()
    await refused(Banned, bob.ask(Join(room="lobby")))
    assert ann.told("joined") == []


async def test_too_many_rooms(make_node: MakeEngine) -> None:
    node = await make_node(max_rooms_per_connection=2)
    ann = await Client.named(node, "ann", "one", "two")
    await refused(TooManyRooms, ann.ask(Join(room="three")))
    await ann.ask(Join(room="one"))
    await ann.ask(Leave(room="one"))
    await ann.ask(Join(room="three"))


async def test_a_history_that_is_down_leaves_nobody_half_in(node: Node) -> None:
    class Down(MemoryHistory):
        async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
            raise Unavailable("The database does not answer.")

    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    working = node.context.histories["memory"]
    node.context.histories["memory"] = Down()  # type: ignore[index]
    await refused(Unavailable, bob.ask(Join(room="lobby")))
    await node.context.tasks.drain()
    check_that_nothing_is_left(node, bob, "lobby")
    assert (await ann.ask(ListMembers(room="lobby")))["count"] == 1
    # One who is in stays in.
    await refused(Unavailable, ann.ask(Join(room="lobby")))
    node.context.histories["memory"] = working  # type: ignore[index]
    await ann.say("lobby", "still here")
    assert ann.messages() == ["still here"]
    # Whoever was told to have come was told to have gone, too.
    assert len(ann.told("joined")) == len(ann.told("left"))
    await bob.ask(Join(room="lobby"))
    assert names(ann.told("joined"))[-1] == "bob"


async def test_who_does_not_come_in_after_all_hears_nothing_said_meanwhile(
    node: Node,
) -> None:
    class Failing(Paused):
        async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
            await super().snapshot(room, since, limit)
            raise Unavailable("The database does not answer.")

    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    failing = Failing("before")
    failing.go.clear()
    working = node.context.histories["memory"]
    node.context.histories["memory"] = failing  # type: ignore[index]
    joining = asyncio.ensure_future(bob.ask(Join(room="lobby")))
    await soon(failing.reached)
    await ann.say("lobby", "not for bob")
    failing.go.set()
    await refused(Unavailable, joining)
    assert bob.messages() == []
    node.context.histories["memory"] = working  # type: ignore[index]
    await ann.say("lobby", "nor this")
    await bob.ask(Join(room="lobby"))
    await ann.say("lobby", "this")
    assert bob.messages() == ["this"]


async def test_a_layer_that_is_down_keeps_nobody_out(node: Node, wire: Wire) -> None:
    wire.broken = True
    ann = await Client.named(node, "ann", "lobby")
    await ann.say("lobby", "hi")
    assert ann.messages() == ["hi"]
    wire.broken = False


# Extensions --------------------------------------------------------------------------------------


class Doorkeeper(Extension):
    calls: list[str]

    async def init(self) -> None:
        self.calls = LOG

    async def on_join(self, event: JoinEvent) -> None:
        self.calls.append(f"{'room' if self.room else 'application'} joins {event.user.name}")
        if event.user.name == "eve":
            raise Rejected("Not you, Eve.")
        if event.user.name == "bug":
            raise ValueError("secret")

    async def on_leave(self, event: LeaveEvent) -> None:
        self.calls.append(f"{'room' if self.room else 'application'} {event.reason} {event.user.name}")


LOG: list[str] = []


@pytest.fixture
async def guarded(chat: Application, installed: Install) -> None:
    LOG.clear()
    name = installed(Doorkeeper)
    chat.extension = name
    await chat.asave()
    await Room.objects.acreate(application=chat, name="lobby", extension=name)


@pytest.mark.usefixtures("guarded")
async def test_the_room_is_asked_before_its_application(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    await ann.ask(Join(room="lobby"))
    await ann.ask(Leave(room="lobby"))
    await node.context.tasks.drain()
    assert LOG == ["room joins ann", "application joins ann", "room left ann", "application left ann"]


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize(("name", "code"), [("eve", "rejected"), ("bug", "internal_error")])
async def test_who_is_refused_is_not_in(node: Node, name: str, code: str) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await Client.named(node, name)
    error = await refused(RoomsError, other.ask(Join(room="lobby")))
    assert error.code == code
    assert "secret" not in error.message
    await node.context.tasks.drain()
    check_that_nothing_is_left(node, other, "lobby")
    assert (await ann.ask(ListMembers(room="lobby")))["count"] == 1
    assert ann.told("joined", "left") == []
    assert f"application joins {name}" not in LOG
    await ann.say("lobby", "unheard")
    assert other.messages() == []


@pytest.mark.usefixtures("guarded")
async def test_a_user_comes_and_goes_once_however_many_connections(
    node: Node, clock: SimpleNamespace
) -> None:
    phone = await Client.named(node, "ann")
    token = phone.heard[-1]["data"]["token"]
    desk = Client(node)
    await desk.connect()
    from rooms.protocol.commands import Login

    await desk.ask(Login(token=token))
    bob = await Client.named(node, "bob", "lobby")
    for client in (phone, desk):
        await client.ask(Join(room="lobby"))
    assert names(bob.told("joined")) == ["ann"]
    await phone.ask(Leave(room="lobby"))
    assert bob.told("left") == []
    desk.disconnect()
    await let_grace_pass(node, clock)
    assert [(frame["user"]["name"], frame["reason"]) for frame in bob.told("left")] == [("ann", "dropped")]
    assert [each for each in LOG if "ann" in each] == [
        *("room joins ann", "application joins ann", "room dropped ann", "application dropped ann")
    ]


# Going out ---------------------------------------------------------------------------------------


async def test_leaving(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    assert await bob.ask(Leave(room="lobby")) == {}
    assert [(frame["user"]["name"], frame["reason"]) for frame in ann.told("left")] == [("bob", "left")]
    assert bob.told("left") == []
    await ann.say("lobby", "unheard")
    assert bob.messages() == []
    await refused(NotMember, bob.ask(Leave(room="lobby")))
    await refused(NotMember, bob.say("lobby", "unheard"))
    for asking in (ListMembers(room="lobby"), ReadHistory(room="lobby")):
        await refused(NotMember, bob.ask(asking))


async def test_dropping_counts_only_after_the_grace_period(node: Node, clock: SimpleNamespace) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    bob.disconnect()
    await node.context.tasks.drain()
    assert ann.told("left") == []
    assert (await ann.ask(ListMembers(room="lobby")))["count"] == 2
    await let_grace_pass(node, clock)
    assert [(frame["user"]["name"], frame["reason"]) for frame in ann.told("left")] == [("bob", "dropped")]
    assert (await ann.ask(ListMembers(room="lobby")))["count"] == 1


async def test_coming_back_within_the_grace_period_is_silent(node: Node, clock: SimpleNamespace) -> None:
    from rooms.protocol.commands import Login

    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    token = next(frame["data"]["token"] for frame in bob.told("reply") if "token" in frame["data"])
    bob.disconnect()
    await node.context.tasks.drain()
    again = Client(node)
    await again.connect()
    await again.ask(Login(token=token))
    await again.ask(Join(room="lobby"))
    await let_grace_pass(node, clock)
    assert ann.told("left") == []
    assert names(ann.told("joined")) == ["bob"]
    assert (await ann.ask(ListMembers(room="lobby")))["count"] == 2


async def test_a_room_says_how_long_its_grace_period_is(
    node: Node, chat: Application, clock: SimpleNamespace
) -> None:
    await Room.objects.acreate(application=chat, name="strict", leave_grace=0)
    ann, bob = await Client.named(node, "ann", "strict"), await Client.named(node, "bob", "strict")
    bob.disconnect()
    await node.context.tasks.drain()
    for action in node.context.delayed.pop_due():
        await action()
    assert names(ann.told("left")) == ["bob"]


async def test_a_room_that_passes_goes_with_its_last_member(node: Node, chat: Application) -> None:
    await Room.objects.acreate(application=chat, name="brief", persistent=False)
    ann, bob = await Client.named(node, "ann", "brief"), await Client.named(node, "bob", "brief")
    await ann.ask(Leave(room="brief"))
    assert await Room.objects.filter(name="brief").aexists()
    await bob.ask(Leave(room="brief"))
    await node.context.tasks.drain()
    assert not await Room.objects.filter(name="brief").aexists()
    # Made anew, another room.
    data = await ann.ask(Join(room="brief"))
    assert (data["room"]["owner"], data["position"]["seq"]) == ("ann", 0)


async def test_the_process_hears_of_a_room_only_while_somebody_is_in_it(node: Node, wire: Wire) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    group = ann.connection.memberships["lobby"].room.key
    assert group in wire.groups
    await ann.ask(Leave(room="lobby"))
    await node.context.tasks.drain()
    assert group in wire.groups
    bob.disconnect()
    await node.context.tasks.drain()
    assert group not in wire.groups


async def test_who_has_left_by_the_answer_has_given_up_the_place(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Client.named(node, "ann", "lobby")
    presence, asked, go = node.context.presence, asyncio.Event(), asyncio.Event()
    remove = presence.remove

    async def slow(*arguments: Any, **named: Any) -> Any:
        asked.set()
        await soon(go)
        return await remove(*arguments, **named)

    monkeypatch.setattr(presence, "remove", slow)
    heard = len(ann.heard)
    leaving = asyncio.create_task(ann.ask(Leave(room="lobby")))
    await soon(asked)
    ann.listen()
    assert ann.heard[heard:] == []
    go.set()
    assert await leaving == {}


# Listening ---------------------------------------------------------------------------------------


async def test_a_listener_hears_and_is_not_seen(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    data = await bob.ask(Subscribe(room="lobby"))
    assert (data["room"]["you"]["send"], data["count"]) == (False, 1)
    assert ann.told("joined") == []
    await ann.say("lobby", "hi")
    assert bob.messages() == ["hi"]
    await refused(NotMember, bob.say("lobby", "hi"))
    assert (await bob.ask(ListMembers(room="lobby")))["count"] == 1
    assert len((await bob.ask(ReadHistory(room="lobby")))["messages"]) == 1
    await refused(NotMember, bob.ask(Leave(room="lobby")))
    await bob.ask(Unsubscribe(room="lobby"))
    await ann.say("lobby", "unheard")
    assert bob.messages() == ["hi"]
    assert ann.told("left") == []


async def test_a_listener_may_become_a_member_and_not_the_reverse(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    await bob.ask(Subscribe(room="lobby"))
    data = await bob.ask(Join(room="lobby"))
    assert (data["room"]["you"]["send"], data["count"]) == (True, 2)
    assert names(ann.told("joined")) == ["bob"]
    await bob.ask(Subscribe(room="lobby"))
    await bob.say("lobby", "hi")
    await refused(NotMember, bob.ask(Unsubscribe(room="lobby")))
    assert bob.messages() == ann.messages() == ["hi"]


@pytest.mark.parametrize("listed", [True, False])
async def test_who_comes_while_the_answer_is_made_is_told_once(
    node: Node, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    """In the list of members or as one who joined, but not both."""
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    presence, asked, go = node.context.presence, asyncio.Event(), asyncio.Event()
    members = presence.members

    async def slow(*arguments: Any, **named: Any) -> Any:
        first = None if listed else await members(*arguments, **named)
        if not asked.is_set():
            asked.set()
            await soon(go)
        return first or await members(*arguments, **named)

    monkeypatch.setattr(presence, "members", slow)
    joining = asyncio.create_task(ann.ask(Join(room="lobby")))
    await soon(asked)
    await bob.ask(Join(room="lobby"))
    go.set()
    told = [user["name"] for user in (await joining)["members"]]
    assert sorted(told + [joined["user"]["name"] for joined in ann.told("joined")]) == ["ann", "bob"]
    assert ("bob" in told) is listed
