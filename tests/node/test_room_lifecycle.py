"""Rooms are created, listed and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from django.db.models.signals import ModelSignal, pre_delete, pre_save
from django.utils import timezone

from rooms.concurrency import rate_limits
from rooms.concurrency.thread_pool import QUERY_TIMEOUT
from rooms.conf import Backend
from rooms.hub.config import room_group
from rooms.models import Application, Room
from rooms.node.node import Node
from rooms.protocol.commands import CloseRoom, CreateRoom, Join, Leave, ListRooms
from rooms.protocol.errors import NotLoggedIn, PermissionDenied, RoomExists, RoomNotFound, Unavailable
from tests.node.clients import PATIENCE, Client, MakeNode, error_of

pytestmark = pytest.mark.database


async def test_the_room_list_has_the_listed_rooms_with_their_members_counted(
    node: Node, chat: Application
) -> None:
    for name, listed in (("b", True), ("a", True), ("ab", True), ("hidden", False)):
        await Room.objects.acreate(application=chat, name=name, title=name.upper(), listed=listed)
    await Client.named(node, "bob", "a")
    ann = await Client.named(node, "ann", "a")
    data = await ann.request(ListRooms())
    assert data == {
        "rooms": [
            {"name": name, "title": name.upper(), "members": members, "max_members": None, "mode": "open"}
            for name, members in (("a", 2), ("ab", 0), ("b", 0))
        ],
        "more": False,
    }
    data = await ann.request(ListRooms(prefix="a", limit=1))
    assert ([room["name"] for room in data["rooms"]], data["more"]) == (["a"], True)
    assert await ann.request(ListRooms(limit=0)) == {"rooms": [], "more": True}


async def test_the_length_of_a_list_is_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_LIST_LIMIT", 2)
    ann = await Client.named(node, "ann", "a", "b", "c")
    assert len((await ann.request(ListRooms(limit=10**6)))["rooms"]) == 2


async def test_connections_that_asked_for_the_list_receive_its_changes(node: Node) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(ListRooms())
    await bob.request(CreateRoom(room="new", title="New"))
    await node.context.tasks.drain()
    assert [frame["room"]["title"] for frame in ann.received("room_added")] == ["New"]
    await bob.request(CloseRoom(room="new"))
    await node.context.tasks.drain()
    assert [frame["room"] for frame in ann.received("room_removed")] == ["new"]
    assert bob.received("room_added", "room_removed") == []


async def test_the_reply_to_create_and_close_precedes_the_change_of_the_list(node: Node) -> None:
    ann = await Client.named(node, "ann")
    await ann.request(ListRooms())
    ann.read()
    before = len(ann.frames)
    data = await ann.request(CreateRoom(room="new", mode="broadcast", max_members=3))
    await node.context.tasks.drain()
    ann.read()
    assert [frame["type"] for frame in ann.frames[before:]] == ["reply", "room_added"]
    assert data["room"] == {
        "name": "new",
        "title": "",
        "mode": "broadcast",
        "owner": "ann",
        "max_members": 3,
        "you": {"send": True, "moderate": True},
    }
    before = len(ann.frames)
    await ann.request(CloseRoom(room="new"))
    await node.context.tasks.drain()
    ann.read()
    assert [frame["type"] for frame in ann.frames[before:]] == ["reply", "room_removed"]


async def test_the_creator_of_a_room_still_has_to_join(node: Node) -> None:
    ann = await Client.named(node, "ann")
    await ann.request(CreateRoom(room="new"))
    assert ann.connection.memberships == {}
    assert (await ann.request(Join(room="new")))["room"]["owner"] == "ann"


async def test_only_owners_and_moderators_close_rooms_and_only_some_applications_allow_creating(
    node: Node, chat: Application
) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.request(CreateRoom(room="owned"))
    await error_of(RoomExists, bob.request(CreateRoom(room="owned")))
    await error_of(PermissionDenied, bob.request(CloseRoom(room="owned")))
    await error_of(RoomNotFound, bob.request(CloseRoom(room="nowhere")))
    bob.connection.moderator = True
    await bob.request(CloseRoom(room="owned"))
    chat.rooms_on_demand = False
    await chat.asave()
    await node.context.tasks.drain()
    await error_of(PermissionDenied, ann.request(CreateRoom(room="another")))


async def test_commands_about_rooms_require_a_login(node: Node) -> None:
    client = Client(node)
    await client.connect()
    for command in (ListRooms(), CreateRoom(room="a"), CloseRoom(room="a")):
        await error_of(NotLoggedIn, client.request(command))


async def test_members_of_a_closed_room_are_notified_and_removed(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    await ann.request(CloseRoom(room="lobby"))
    await node.context.tasks.drain()
    for client in (ann, bob):
        assert [(frame["room"], frame["reason"]) for frame in client.received("removed")] == [
            ("lobby", "closed")
        ]
        assert client.connection.memberships == {}
    assert not await Room.objects.aexists()


async def test_concurrent_joins_create_one_room_on_demand(node: Node) -> None:
    clients = [await Client.named(node, f"user {number}") for number in range(6)]
    replies = await asyncio.gather(*(client.request(Join(room="new")) for client in clients))
    assert await Room.objects.acount() == 1
    assert len({reply["room"]["owner"] for reply in replies}) == 1
    assert (await clients[0].send("new", 1))["seq"] == 1
    assert all(client.messages() == [1] for client in clients)


async def test_a_join_while_the_last_member_leaves_gets_an_existing_room(
    node: Node, chat: Application
) -> None:
    """The room either stays, or there is a new one: no member ends up in a room that is gone."""
    chat.rooms_stay = False
    await chat.asave()
    await node.context.tasks.drain()
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    for _ in range(8):
        await ann.request(Join(room="brief"))
        await asyncio.gather(ann.request(Leave(room="brief")), bob.request(Join(room="brief")))
        await node.context.tasks.drain()
        assert "brief" in bob.connection.memberships
        assert bob.connection.memberships["brief"].room.key == room_group((await Room.objects.aget()).pk)
        await bob.send("brief", "here")
        await bob.request(Leave(room="brief"))
        await node.context.tasks.drain()
        assert not await Room.objects.aexists()


async def test_the_sweep_deletes_temporary_rooms_that_stayed_empty(node: Node, chat: Application) -> None:
    await delete_empty_rooms_of(chat)
    ann = await Client.named(node, "ann", "full")
    for name in ("empty", "idle", "new", "stays"):
        await ann.request(CreateRoom(room=name))
    await Room.objects.filter(name="stays").aupdate(persistent=True)
    idle = node.context.registry.cached_room("chat", "idle")
    assert idle is not None
    node.context.registry.remove_room(idle)
    await Room.objects.exclude(name="new").aupdate(created=timezone.now() - timedelta(days=1))
    await node.lifecycle.sweep()
    await node.context.tasks.drain()
    assert {room.name async for room in Room.objects.all()} == {"full", "new", "stays"}


@pytest.mark.parametrize("shared", [False, True])
async def test_the_sweep_deletes_rooms_of_another_process_only_where_presence_is_shared(
    make_node: MakeNode, chat: Application, request: pytest.FixtureRequest, shared: bool
) -> None:
    """A room that looks empty here may have members there, unless the processes share their presence."""
    presence: Backend = {"BACKEND": "rooms.presence.memory.MemoryPresence"}
    if shared:
        url = request.getfixturevalue("redis_url")
        presence = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": url}}
    one, two = [await make_node(presence=presence) for _ in range(2)]
    await delete_empty_rooms_of(chat)
    await Client.named(one, "ann", "full")
    await Room.objects.acreate(application=chat, name="abandoned", persistent=False)
    await Room.objects.aupdate(created=timezone.now() - timedelta(days=1))
    await two.lifecycle.sweep()
    assert {room.name async for room in Room.objects.all()} == ({"full"} if shared else {"full", "abandoned"})


async def delete_empty_rooms_of(chat: Application) -> None:
    """Let its rooms go with their last member."""
    chat.rooms_stay = False
    await chat.asave()


# A database that answers late ----------------------------------------------------------------------


@contextmanager
def late(node: Node, signal: ModelSignal) -> Iterator[Event]:
    """Block the database's changes of rooms until the end, and let the node wait for them only briefly."""
    reached, go = Event(), Event()

    def hold(**_: Any) -> None:
        reached.set()
        go.wait()

    signal.connect(hold, sender=Room)
    pool = node.context.pool
    assert pool._timeout == QUERY_TIMEOUT
    pool._timeout = 0.05
    try:
        yield reached
    finally:
        pool._timeout = QUERY_TIMEOUT
        signal.disconnect(hold, sender=Room)
        go.set()
        pool.close()


async def test_a_room_whose_creation_timed_out_is_not_created_late(node: Node) -> None:
    ann = await Client.named(node, "ann")
    with late(node, pre_save):
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Unavailable) as raised:
                await ann.request(CreateRoom(room="new"))
        assert raised.value.retry
    assert not await Room.objects.aexists()
    await ann.request(CreateRoom(room="new"))


async def test_a_room_that_was_joined_meanwhile_is_not_deleted_late(
    make_node: MakeNode, chat: Application
) -> None:
    """Presence that is not shared prevents no join meanwhile."""
    node = await make_node(presence={"BACKEND": "rooms.presence.memory.MemoryPresence"})
    await delete_empty_rooms_of(chat)
    ann, bob = await Client.named(node, "ann", "brief"), await Client.named(node, "bob")
    with late(node, pre_delete) as reached:
        await ann.request(Leave(room="brief"))
        await asyncio.to_thread(reached.wait)
        # The removal is postponed, and releases the lock of the room.
        await node.context.tasks.drain()
        node.context.pool._timeout = PATIENCE
        await bob.request(Join(room="brief"))
    await node.context.tasks.drain()
    assert await Room.objects.aexists()
    await bob.send("brief", "still here")
