"""Join and subscribe: the reply, refusals, extensions, and clients that only subscribe."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rooms.extensions import Extension, JoinEvent, LeaveEvent
from rooms.histories import Snapshot
from rooms.histories.memory import MemoryHistory
from rooms.hub.config import RoomConfig
from rooms.models import Application, Ban, Room
from rooms.node.node import Node
from rooms.protocol.commands import (
    CreateRoom,
    Join,
    Leave,
    ListMembers,
    Login,
    ReadHistory,
    Subscribe,
    Unsubscribe,
)
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
from tests.node.clients import Client, Install, MakeNode, error_of, run_due_actions, wait_for
from tests.node.unreliable_layer import UnreliableLayer


def names(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["user"]["name"] for frame in frames]


# The reply ---------------------------------------------------------------------------------------


async def test_the_reply_has_details_members_state_and_messages(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    await ann.send("lobby", "one")
    await ann.send("lobby", "two", event="topic", state=True)
    bob = await Client.named(node, "bob")
    data = await bob.request(Join(room="lobby"))
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


async def test_a_user_is_announced_once_and_not_to_itself(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    bob = await Client.named(node, "bob", "lobby")
    assert names(ann.received("joined")) == ["bob"]
    assert bob.received("joined") == []
    await bob.request(Join(room="lobby"))
    assert names(ann.received("joined")) == ["bob"]
    assert bob.received("joined") == []


async def test_a_repeated_join_gets_another_reply(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    await ann.send("lobby", 1)
    position = (await ann.request(Join(room="lobby", limit=0)))["position"]
    await ann.send("lobby", 2)
    data = await ann.request(Join(room="lobby", since=Position(**position)))
    assert ([message["data"] for message in data["messages"]], data["recovered"]) == ([2], True)
    assert (data["count"], data["position"]["seq"]) == (1, 2)


async def test_a_member_list_that_is_cut_short_contains_the_joining_user(make_node: MakeNode) -> None:
    node = await make_node(join_members_limit=2)
    for name in ("ann", "bob"):
        await Client.named(node, name, "lobby")
    data = await (await Client.named(node, "zoe")).request(Join(room="lobby"))
    assert [user["name"] for user in data["members"]] == ["ann", "zoe"]
    assert data["count"] == 3


# Refusals ----------------------------------------------------------------------------------------


def check_not_in_room(node: Node, client: Client, room: str) -> None:
    assert room not in client.connection.memberships
    loaded = next(each for each in node.context.registry.rooms() if each.name == room)
    assert client.connection not in loaded.members


async def test_a_client_without_login_cannot_join_leave_or_subscribe(node: Node) -> None:
    client = Client(node)
    await client.connect()
    for command in (Join(room="lobby"), Leave(room="lobby"), Subscribe(room="lobby")):
        await error_of(NotLoggedIn, client.request(command))


async def test_a_join_of_a_missing_room_is_refused_where_rooms_are_not_made_on_demand(node: Node) -> None:
    ann = await Client.named(node, "ann")
    row = await Application.objects.aget()
    row.rooms_on_demand = False
    await row.asave()
    await node.context.tasks.drain()
    await error_of(RoomNotFound, ann.request(Join(room="nowhere")))


async def test_a_join_is_refused_while_the_room_is_full_and_a_subscription_is_not(node: Node) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(CreateRoom(room="small", max_members=1))
    await ann.request(Join(room="small"))
    error = await error_of(RoomFull, bob.request(Join(room="small")))
    assert "1 of 1" in error.message
    check_not_in_room(node, bob, "small")
    # A subscriber does not count as a member.
    await bob.request(Subscribe(room="small"))
    await error_of(RoomFull, bob.request(Join(room="small")))
    await ann.send("small", "hi")
    assert bob.messages() == ["hi"]
    await ann.request(Leave(room="small"))
    await bob.request(Join(room="small"))


async def test_a_wrong_password_is_refused_and_a_member_needs_none(node: Node) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(CreateRoom(room="locked", password="sesame"))
    await ann.request(Join(room="locked"))
    for wrong in (None, "please"):
        await error_of(BadPassword, bob.request(Join(room="locked", password=wrong)))
        await error_of(BadPassword, bob.request(Subscribe(room="locked", password=wrong)))
    check_not_in_room(node, bob, "locked")
    await bob.request(Join(room="locked", password="sesame"))
    # A member joins again without the password.
    await bob.request(Join(room="locked"))


async def test_a_banned_user_cannot_join(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    room = await Room.objects.select_related("application").aget()
    await Ban.objects.acreate(application=room.application, room=room, guest="BOB")
    await node.context.tasks.drain()
    await error_of(Banned, bob.request(Join(room="lobby")))
    assert ann.received("joined") == []


async def test_a_join_is_refused_above_the_maximum_of_rooms_per_connection(make_node: MakeNode) -> None:
    node = await make_node(max_rooms_per_connection=2)
    ann = await Client.named(node, "ann", "one", "two")
    await error_of(TooManyRooms, ann.request(Join(room="three")))
    await ann.request(Join(room="one"))
    await ann.request(Leave(room="one"))
    await ann.request(Join(room="three"))


async def test_a_join_that_fails_as_history_is_down_is_undone(node: Node) -> None:
    class Down(MemoryHistory):
        async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
            raise Unavailable("The database does not answer.")

    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    working = node.context.histories["memory"]
    node.context.histories["memory"] = Down()
    await error_of(Unavailable, bob.request(Join(room="lobby")))
    await node.context.tasks.drain()
    check_not_in_room(node, bob, "lobby")
    assert (await ann.request(ListMembers(room="lobby")))["count"] == 1
    # A member stays one.
    await error_of(Unavailable, ann.request(Join(room="lobby")))
    node.context.histories["memory"] = working
    await ann.send("lobby", "still here")
    assert ann.messages() == ["still here"]
    # Each announced join is followed by a leave.
    assert len(ann.received("joined")) == len(ann.received("left"))
    await bob.request(Join(room="lobby"))
    assert names(ann.received("joined"))[-1] == "bob"


async def test_a_join_succeeds_while_the_channel_layer_is_down(
    node: Node, unreliable_layer: UnreliableLayer
) -> None:
    unreliable_layer.broken = True
    ann = await Client.named(node, "ann", "lobby")
    await ann.send("lobby", "hi")
    assert ann.messages() == ["hi"]
    unreliable_layer.broken = False


# Extensions --------------------------------------------------------------------------------------


class Guard(Extension):
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
async def guarded(chat: Application, install_extension: Install) -> None:
    LOG.clear()
    name = install_extension(Guard)
    chat.extension = name
    await chat.asave()
    await Room.objects.acreate(application=chat, name="lobby", extension=name)


@pytest.mark.usefixtures("guarded")
async def test_the_extension_of_the_room_decides_before_that_of_the_application(node: Node) -> None:
    ann = await Client.named(node, "ann", "lobby")
    await ann.request(Join(room="lobby"))
    await ann.request(Leave(room="lobby"))
    await node.context.tasks.drain()
    assert LOG == ["room joins ann", "application joins ann", "room left ann", "application left ann"]


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize(("name", "code"), [("eve", "rejected"), ("bug", "internal_error")])
async def test_a_user_whose_join_an_extension_refuses_is_no_member(node: Node, name: str, code: str) -> None:
    ann, other = await Client.named(node, "ann", "lobby"), await Client.named(node, name)
    error = await error_of(RoomsError, other.request(Join(room="lobby")))
    assert error.code == code
    assert "secret" not in error.message
    await node.context.tasks.drain()
    check_not_in_room(node, other, "lobby")
    assert (await ann.request(ListMembers(room="lobby")))["count"] == 1
    assert ann.received("joined", "left") == []
    assert f"application joins {name}" not in LOG
    await ann.send("lobby", "not for others")
    assert other.messages() == []


@pytest.mark.usefixtures("guarded")
async def test_a_user_with_two_connections_joins_and_leaves_once(node: Node, clock: SimpleNamespace) -> None:
    phone = await Client.named(node, "ann")
    token = phone.frames[-1]["data"]["token"]
    desk = Client(node)
    await desk.connect()
    await desk.request(Login(token=token))
    bob = await Client.named(node, "bob", "lobby")
    for client in (phone, desk):
        await client.request(Join(room="lobby"))
    assert names(bob.received("joined")) == ["ann"]
    await phone.request(Leave(room="lobby"))
    assert bob.received("left") == []
    desk.disconnect()
    await run_due_actions(node, clock)
    assert [(frame["user"]["name"], frame["reason"]) for frame in bob.received("left")] == [
        ("ann", "dropped")
    ]
    assert [each for each in LOG if "ann" in each] == [
        *("room joins ann", "application joins ann", "room dropped ann", "application dropped ann")
    ]


async def test_on_join_runs_once_for_a_user_that_joins_with_two_connections_at_once(
    node: Node, chat: Application, install_extension: Install
) -> None:
    class Slow(Guard):
        async def on_join(self, event: JoinEvent) -> None:
            await super().on_join(event)
            asked.set()
            await wait_for(go)

    LOG.clear()
    asked, go = asyncio.Event(), asyncio.Event()
    await Room.objects.acreate(application=chat, name="lobby", extension=install_extension(Slow))
    phone, desk = await Client.named(node, "ann"), Client(node)
    await desk.connect()
    await desk.request(Login(token=phone.frames[-1]["data"]["token"]))
    joining = [asyncio.create_task(client.request(Join(room="lobby"))) for client in (phone, desk)]
    await wait_for(asked)
    go.set()
    assert [data["count"] for data in await asyncio.gather(*joining)] == [1, 1]
    assert LOG == ["room joins ann"]
    assert phone.received("joined") == desk.received("joined") == []


# Subscribe ---------------------------------------------------------------------------------------


async def test_a_subscriber_receives_messages_and_is_not_listed(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    data = await bob.request(Subscribe(room="lobby"))
    assert (data["room"]["you"]["send"], data["count"]) == (False, 1)
    assert ann.received("joined") == []
    await ann.send("lobby", "hi")
    assert bob.messages() == ["hi"]
    await error_of(NotMember, bob.send("lobby", "hi"))
    assert (await bob.request(ListMembers(room="lobby")))["count"] == 1
    assert len((await bob.request(ReadHistory(room="lobby")))["messages"]) == 1
    await error_of(NotMember, bob.request(Leave(room="lobby")))
    await bob.request(Unsubscribe(room="lobby"))
    await ann.send("lobby", "not for others")
    assert bob.messages() == ["hi"]
    assert ann.received("left") == []


async def test_a_subscriber_can_become_a_member_and_a_member_stays_one(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    await bob.request(Subscribe(room="lobby"))
    data = await bob.request(Join(room="lobby"))
    assert (data["room"]["you"]["send"], data["count"]) == (True, 2)
    assert names(ann.received("joined")) == ["bob"]
    await bob.request(Subscribe(room="lobby"))
    await bob.send("lobby", "hi")
    await error_of(NotMember, bob.request(Unsubscribe(room="lobby")))
    assert bob.messages() == ann.messages() == ["hi"]


@pytest.mark.parametrize("listed", [True, False])
async def test_a_user_that_joins_while_the_reply_is_made_is_sent_once(
    node: Node, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    """In the member list or as a joined event, but not in both."""
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    presence, asked, go = node.context.presence, asyncio.Event(), asyncio.Event()
    members = presence.members

    async def slow(*arguments: Any, **named: Any) -> Any:
        first = None if listed else await members(*arguments, **named)
        if not asked.is_set():
            asked.set()
            await wait_for(go)
        return first or await members(*arguments, **named)

    monkeypatch.setattr(presence, "members", slow)
    joining = asyncio.create_task(ann.request(Join(room="lobby")))
    await wait_for(asked)
    await bob.request(Join(room="lobby"))
    go.set()
    in_reply = [user["name"] for user in (await joining)["members"]]
    assert sorted(in_reply + [joined["user"]["name"] for joined in ann.received("joined")]) == ["ann", "bob"]
    assert ("bob" in in_reply) is listed
