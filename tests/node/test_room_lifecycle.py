"""Making rooms, listing them, taking them away."""

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
from tests.node.clients import PATIENCE, Client, MakeEngine, refused

pytestmark = pytest.mark.database


async def test_the_list(node: Node, chat: Application) -> None:
    for name, listed in (("b", True), ("a", True), ("ab", True), ("hidden", False)):
        await Room.objects.acreate(application=chat, name=name, title=name.upper(), listed=listed)
    await Client.named(node, "bob", "a")
    ann = await Client.named(node, "ann", "a")
    data = await ann.ask(ListRooms())
    assert data == {
        "rooms": [
            {"name": name, "title": name.upper(), "members": members, "max_members": None, "mode": "open"}
            for name, members in (("a", 2), ("ab", 0), ("b", 0))
        ],
        "more": False,
    }
    data = await ann.ask(ListRooms(prefix="a", limit=1))
    assert ([room["name"] for room in data["rooms"]], data["more"]) == (["a"], True)
    assert await ann.ask(ListRooms(limit=0)) == {"rooms": [], "more": True}


async def test_a_list_has_a_longest(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "LONGEST_LIST", 2)
    ann = await Client.named(node, "ann", "a", "b", "c")
    assert len((await ann.ask(ListRooms(limit=10**6)))["rooms"]) == 2


async def test_who_asked_for_the_list_hears_of_changes_to_it(node: Node) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(ListRooms())
    await bob.ask(CreateRoom(room="new", title="New"))
    await node.context.tasks.drain()
    assert [frame["room"]["title"] for frame in ann.told("room_added")] == ["New"]
    await bob.ask(CloseRoom(room="new"))
    await node.context.tasks.drain()
    assert [frame["room"] for frame in ann.told("room_removed")] == ["new"]
    assert bob.told("room_added", "room_removed") == []


async def test_the_maker_is_answered_before_hearing_of_the_room(node: Node) -> None:
    ann = await Client.named(node, "ann")
    await ann.ask(ListRooms())
    ann.listen()
    before = len(ann.heard)
    data = await ann.ask(CreateRoom(room="new", mode="broadcast", max_members=3))
    await node.context.tasks.drain()
    ann.listen()
    assert [frame["type"] for frame in ann.heard[before:]] == ["reply", "room_added"]
    assert data["room"] == {
        "name": "new",
        "title": "",
        "mode": "broadcast",
        "owner": "ann",
        "max_members": 3,
        "you": {"send": True, "moderate": True},
    }
    before = len(ann.heard)
    await ann.ask(CloseRoom(room="new"))
    await node.context.tasks.drain()
    ann.listen()
    assert [frame["type"] for frame in ann.heard[before:]] == ["reply", "room_removed"]


async def test_the_maker_still_has_to_join(node: Node) -> None:
    ann = await Client.named(node, "ann")
    await ann.ask(CreateRoom(room="new"))
    assert ann.connection.memberships == {}
    assert (await ann.ask(Join(room="new")))["room"]["owner"] == "ann"


async def test_who_may_make_and_close_rooms(node: Node, chat: Application) -> None:
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    await ann.ask(CreateRoom(room="hers"))
    await refused(RoomExists, bob.ask(CreateRoom(room="hers")))
    await refused(PermissionDenied, bob.ask(CloseRoom(room="hers")))
    await refused(RoomNotFound, bob.ask(CloseRoom(room="nowhere")))
    bob.connection.moderator = True
    await bob.ask(CloseRoom(room="hers"))
    chat.rooms_on_demand = False
    await chat.asave()
    await node.context.tasks.drain()
    await refused(PermissionDenied, ann.ask(CreateRoom(room="another")))


async def test_who_is_not_logged_in(node: Node) -> None:
    client = Client(node)
    await client.connect()
    for asking in (ListRooms(), CreateRoom(room="a"), CloseRoom(room="a")):
        await refused(NotLoggedIn, client.ask(asking))


async def test_members_of_a_closed_room_are_told_and_out(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    await ann.ask(CloseRoom(room="lobby"))
    await node.context.tasks.drain()
    for client in (ann, bob):
        assert [(frame["room"], frame["reason"]) for frame in client.told("removed")] == [("lobby", "closed")]
        assert client.connection.memberships == {}
    assert not await Room.objects.aexists()


async def test_many_who_come_to_a_room_that_is_not_there_make_one(node: Node) -> None:
    clients = [await Client.named(node, f"user {number}") for number in range(6)]
    replies = await asyncio.gather(*(client.ask(Join(room="new")) for client in clients))
    assert await Room.objects.acount() == 1
    assert len({reply["room"]["owner"] for reply in replies}) == 1
    assert (await clients[0].say("new", 1))["seq"] == 1
    assert all(client.messages() == [1] for client in clients)


async def test_coming_in_while_the_last_one_goes(node: Node, chat: Application) -> None:
    """The room either stays, or there is a new one: nobody ends up in a room that is gone."""
    chat.rooms_stay = False
    await chat.asave()
    await node.context.tasks.drain()
    ann, bob = await Client.named(node, "ann"), await Client.named(node, "bob")
    for _ in range(8):
        await ann.ask(Join(room="brief"))
        await asyncio.gather(ann.ask(Leave(room="brief")), bob.ask(Join(room="brief")))
        await node.context.tasks.drain()
        assert "brief" in bob.connection.memberships
        assert bob.connection.memberships["brief"].room.key == room_group((await Room.objects.aget()).pk)
        await bob.say("brief", "here")
        await bob.ask(Leave(room="brief"))
        await node.context.tasks.drain()
        assert not await Room.objects.aexists()


async def test_the_sweep_takes_passing_rooms_that_stayed_empty(node: Node, chat: Application) -> None:
    await chat_of_passing_rooms(chat)
    ann = await Client.named(node, "ann", "full")
    for name in ("empty", "idle", "new", "stays"):
        await ann.ask(CreateRoom(room=name))
    await Room.objects.filter(name="stays").aupdate(persistent=True)
    idle = node.context.registry.cached_room("chat", "idle")
    assert idle is not None
    node.context.registry.remove_room(idle)
    await Room.objects.exclude(name="new").aupdate(created=timezone.now() - timedelta(days=1))
    await node.lifecycle.sweep()
    await node.context.tasks.drain()
    assert {room.name async for room in Room.objects.all()} == {"full", "new", "stays"}


@pytest.mark.parametrize("shared", [False, True])
async def test_what_the_sweep_takes_of_rooms_that_another_process_made(
    make_node: MakeEngine, chat: Application, request: pytest.FixtureRequest, shared: bool
) -> None:
    """What is empty here may be full of people there, unless the processes know of each other's people."""
    presence: Backend = {"BACKEND": "rooms.presence.memory.MemoryPresence"}
    if shared:
        url = request.getfixturevalue("redis_url")
        presence = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": url}}
    one, two = [await make_node(presence=presence) for _ in range(2)]
    await chat_of_passing_rooms(chat)
    await Client.named(one, "ann", "full")
    await Room.objects.acreate(application=chat, name="left", persistent=False)
    await Room.objects.aupdate(created=timezone.now() - timedelta(days=1))
    await two.management.sweep()
    assert {room.name async for room in Room.objects.all()} == ({"full"} if shared else {"full", "left"})


async def chat_of_passing_rooms(chat: Application) -> None:
    chat.rooms_stay = False
    await chat.asave()


# A database that answers late ----------------------------------------------------------------------


@contextmanager
def late(node: Node, signal: ModelSignal) -> Iterator[Event]:
    """What the database is asked to do to a room is held up until the event, and not waited for long."""
    reached, go = Event(), Event()

    def hold(**_: Any) -> None:
        reached.set()
        go.wait()

    signal.connect(hold, sender=Room)
    pool = node.context.pool
    assert pool._answer_seconds == QUERY_TIMEOUT
    pool._answer_seconds = 0.05
    try:
        yield reached
    finally:
        pool._answer_seconds = QUERY_TIMEOUT
        signal.disconnect(hold, sender=Room)
        go.set()
        pool.close()


async def test_a_room_whose_maker_was_put_off_is_not_made_late(node: Node) -> None:
    ann = await Client.named(node, "ann")
    with late(node, pre_save):
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Unavailable) as raised:
                await ann.ask(CreateRoom(room="new"))
        assert raised.value.retry
    assert not await Room.objects.aexists()
    await ann.ask(CreateRoom(room="new"))


async def test_a_room_that_somebody_entered_since_is_not_removed_late(
    make_node: MakeEngine, chat: Application
) -> None:
    """Presence that is not shared keeps nobody out of it meanwhile."""
    node = await make_node(presence={"BACKEND": "rooms.presence.memory.MemoryPresence"})
    await chat_of_passing_rooms(chat)
    ann, bob = await Client.named(node, "ann", "brief"), await Client.named(node, "bob")
    with late(node, pre_delete) as reached:
        await ann.ask(Leave(room="brief"))
        await asyncio.to_thread(reached.wait)
        # That the room goes is put off, and lets go of it.
        await node.context.tasks.drain()
        node.context.pool._answer_seconds = PATIENCE
        await bob.ask(Join(room="brief"))
    await node.context.tasks.drain()
    assert await Room.objects.aexists()
    await bob.say("brief", "still here")
