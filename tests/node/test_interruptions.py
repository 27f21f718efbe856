"""Failures and changes in the middle of something else: nobody is left behind, and nothing comes back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw

from rooms.extensions import Extension, JoinEvent
from rooms.histories import Completion
from rooms.hub.config import RoomConfig
from rooms.models import Application, Ban, Room
from rooms.node import config
from rooms.node.control_messages import RoomChanged
from rooms.node.node import Node
from rooms.protocol.commands import Join, Leave, ListRooms, Login, ReadHistory, Send, Subscribe
from rooms.protocol.errors import Banned, NotMember, RoomNotFound, RoomsError, Unavailable
from rooms.protocol.events import Message
from tests.node.clients import PATIENCE, Client, Install, MakeEngine, let_time_pass, present, refused, soon


class Doors(Extension):
    """Holds up everybody who comes in until it is opened."""

    reached: asyncio.Event
    opened: asyncio.Event

    async def on_join(self, event: JoinEvent) -> None:
        type(self).reached.set()
        await type(self).opened.wait()


@pytest.fixture
async def protocols(chat: Application, installed: Install) -> type[Doors]:
    Doors.reached, Doors.opened = asyncio.Event(), asyncio.Event()
    chat.extension = installed(Doors)
    return Doors


async def saved(node: Node, *rows: Any) -> None:
    for row in rows:
        await row.asave()
    await node.context.tasks.drain()


async def ban(node: Node, chat: Application, guest: str) -> None:
    room = await Room.objects.aget(application=chat, name="lobby")
    await saved(node, Ban(application=chat, room=room, guest=guest))


def failing_once(work: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """The work, whose first call is not answered: before or after it has been carried out."""
    failed = False

    async def fail(*arguments: Any, **options: Any) -> Any:
        nonlocal failed
        if failed:
            return await work(*arguments, **options)
        failed = True
        if after:
            await work(*arguments, **options)
        raise Unavailable("No answer.")

    return fail


class Unanswered(Completion):
    """Between a history and somebody who waits: what they hear is that there was no answer."""

    def __init__(self, completion: Completion) -> None:
        self.completion = completion

    def complete(self, result: Any) -> None:
        self.completion.complete(Unavailable("No answer."))

    def finish(self) -> None:
        self.completion.finish()


class Stop:
    """Work that waits in the middle until it is let go on."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, *arguments: Any) -> Any:
        self.reached.set()
        await self.opened.wait()
        return await self.work(*arguments)


class ThreadStop:
    """The same for a reading in a thread, which waits once it has read."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work, self.loop = work, asyncio.get_running_loop()
        self.reached, self.opened = asyncio.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        record = self.work(*arguments)
        self.loop.call_soon_threadsafe(self.reached.set)
        self.opened.wait(PATIENCE)
        return record


# Joins -------------------------------------------------------------------------------------------


async def test_a_listener_who_is_banned_on_the_way_to_membership_leaves_no_ghost(
    node: Node, chat: Application, protocols: type[Doors]
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    await bob.ask(Subscribe(room="lobby"))
    await saved(node, chat)
    joining = asyncio.ensure_future(bob.ask(Join(room="lobby")))
    await soon(protocols.reached)
    await ban(node, chat, "bob")
    protocols.opened.set()
    await refused(RoomsError, joining)
    await node.context.tasks.drain()
    assert await present(ann, "lobby") == ["ann"]
    assert node.context.hub.members(f"room.{(await Room.objects.aget(name='lobby')).pk}") == [ann.connection]


async def test_who_is_put_out_while_waiting_to_come_in_does_not_get_back_what_they_were(
    node: Node, chat: Application, protocols: type[Doors]
) -> None:
    ann, eve, bob = [await Client.named(node, name) for name in ("ann", "eve", "bob")]
    await ann.ask(Join(room="lobby"))
    await bob.ask(Subscribe(room="lobby"))
    await saved(node, chat)
    first = asyncio.ensure_future(eve.ask(Join(room="lobby")))
    await soon(protocols.reached)
    second = asyncio.ensure_future(bob.ask(Join(room="lobby")))
    # Bob now waits behind Eve.
    await ban(node, chat, "bob")
    protocols.opened.set()
    await first
    await refused(Banned, second)
    await node.context.tasks.drain()
    await refused(NotMember, bob.ask(ReadHistory(room="lobby")))


async def test_a_user_whose_last_join_fails_is_told_to_have_left(
    node: Node, chat: Application, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    token = (await bob.ask(Login()))["token"]
    double = Client(node)
    await double.connect()
    await double.ask(Login(token=token))
    bob.disconnect()
    await node.context.tasks.drain()
    bus = Stop(node.context.broker.subscribe)
    monkeypatch.setattr(node.context.broker, "subscribe", bus)
    joining = asyncio.ensure_future(double.ask(Join(room="lobby")))
    await soon(bus.reached)
    await ban(node, chat, "bob")
    bus.opened.set()
    await refused(Banned, joining)
    await let_time_pass(node, clock)
    assert await present(ann, "lobby") == ["ann"]
    assert [frame["type"] for frame in ann.told("joined", "left")] == ["joined", "left"]


async def test_the_bus_does_not_follow_a_room_that_nobody_got_into(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    await saved(node, Room(application=chat, name="lobby"))
    bob = await Client.named(node, "bob")
    bus = Stop(node.context.broker.subscribe)
    monkeypatch.setattr(node.context.broker, "subscribe", bus)
    joining = asyncio.ensure_future(bob.ask(Join(room="lobby")))
    await soon(bus.reached)
    await ban(node, chat, "bob")
    bus.opened.set()
    await refused(Banned, joining)
    await node.context.tasks.drain()
    assert not [group for group in node.context.broker._wanted if group.startswith("room.")]


async def test_a_login_that_was_not_answered_but_carried_out_is_taken_back(
    node: Node, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    presence = node.context.presence
    monkeypatch.setattr(presence, "add", failing_once(presence.add, after=True))
    bob = Client(node)
    await bob.connect()
    await refused(Unavailable, bob.ask(Login(name="bob")))
    bob.disconnect()
    await let_time_pass(node, clock)
    await Client.named(node, "bob")


# Rows --------------------------------------------------------------------------------------------


async def test_what_an_earlier_history_still_kept_is_not_told_among_the_numbers_of_the_next(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await Room.objects.acreate(application=chat, name="lobby", history="database")
    ann = await Client.named(node, "ann", "lobby")
    await ann.say("lobby", "first")
    history, late = node.context.histories["database"], list[Any]()
    append = history.append
    monkeypatch.setattr(history, "append", lambda *arguments: late.append(arguments))
    await node.messages.send(ann.connection, Send(room="lobby", data=Raw(b'"late"')))
    row.history = "memory"
    await saved(node, row)
    bob = await Client.named(node, "bob", "lobby")
    append(*late[0])
    await ann.connection.wait_idle()
    await bob.say("lobby", "new")
    await node.context.tasks.drain()
    assert bob.messages() == ["new"]
    assert bob.connection.close_code is None


async def test_a_change_is_carried_out_though_reading_the_rest_failed(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Client.named(node, "ann", "lobby")
    directory = node.context.registry
    monkeypatch.setattr(directory, "reload_room", failing_once(directory.reload_room, after=False))
    chat.enabled = False
    await saved(node, chat)
    assert ann.closed == 4509
    assert await directory.application("chat") is None
    # And the rest is made up for by the next reading.
    await directory.refresh()
    assert not directory.cached_application("chat").stale  # type: ignore[union-attr]


async def test_a_room_removed_while_its_extension_is_asked_does_not_come_back(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Client.named(node, "ann")
    row = await Room.objects.acreate(application=chat, name="den")
    await ann.ask(Join(room="den"))
    room = node.context.registry.cached_room("chat", "den")
    assert room is not None
    asked = Stop(room.runner.configure)
    monkeypatch.setattr(room.runner, "configure", asked)
    row.title = "The den"
    await row.asave()
    await soon(asked.reached)
    node.context.registry.remove_room(room)
    asked.opened.set()
    await node.context.tasks.drain()
    assert node.context.registry.cached_room("chat", "den") is None


async def test_a_room_read_before_its_row_went_is_not_kept(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat.history = "database"
    await saved(node, chat)
    row = Room(application=chat, name="den")
    await saved(node, row)
    bob = await Client.named(node, "bob")
    read = ThreadStop(config.load_room)
    monkeypatch.setattr(config, "load_room", read)
    joining = asyncio.ensure_future(bob.ask(Join(room="den")))
    await soon(read.reached)
    await row.adelete()
    read.opened.set()
    await asyncio.gather(joining, return_exceptions=True)
    await node.context.tasks.drain()
    # Either into a new room, made on demand, or again in a moment: but never into what is gone.
    try:
        await bob.ask(Join(room="den"))
    except RoomNotFound:
        pytest.fail("the room that is gone is still in the way")
    assert await Room.objects.filter(name="den").aexists()


async def test_a_room_is_never_told_to_be_there_after_it_was_told_to_be_gone(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await Client.named(node, "ann")
    await ann.ask(ListRooms())
    read = ThreadStop(config.load_room_by_id)
    monkeypatch.setattr(config, "load_room_by_id", read)
    row = await Room.objects.acreate(application=chat, name="brief")
    await soon(read.reached)
    await row.adelete()
    read.opened.set()
    await node.context.tasks.drain()
    assert [frame["type"] for frame in ann.told("room_added", "room_removed")][-1] == "room_removed"


# Messages ----------------------------------------------------------------------------------------


async def test_a_message_kept_without_an_answer_is_told_with_its_second_sending(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat.history = "database"
    await saved(node, chat)
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob", "lobby")
    history = node.context.histories["database"]
    append = history.append

    def lose_an_answer(room: RoomConfig, message: Message, key: str | None, completion: Completion) -> None:
        monkeypatch.setattr(history, "append", append)
        append(room, message, key, Unanswered(completion))

    monkeypatch.setattr(history, "append", lose_an_answer)
    await refused(Unavailable, ann.say("lobby", "hi", key="k"))
    assert (await ann.say("lobby", "hi", key="k"))["seq"] == 1
    assert (await ann.say("lobby", "hi", key="k"))["seq"] == 1
    assert bob.messages() == ann.messages() == ["hi"]


# Two processes -----------------------------------------------------------------------------------


@pytest.fixture
async def two(make_node: MakeEngine, redis_url: str) -> tuple[Node, Node]:
    presence = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": redis_url}}
    return await make_node(presence=presence), await make_node(presence=presence)


async def test_who_follows_a_renamed_room_is_not_taken_out_by_another_process(
    two: tuple[Node, Node], chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    row = await Room.objects.acreate(application=chat, name="old")
    ann, bob = await Client.named(here, "ann", "old"), await Client.named(there, "bob", "old")
    reading = Stop(there.context.registry.reload_room)
    monkeypatch.setattr(there.context.registry, "reload_room", reading)
    await Room.objects.filter(pk=row.pk).aupdate(name="new")
    await here.tell(RoomChanged(application="chat", room=row.pk, name="old", listed=True))
    await ann.until(lambda: ann.told("removed"))
    assert ann.told("removed")[0]["renamed"] == "new"
    await ann.ask(Join(room="new"))
    await soon(reading.reached)
    reading.opened.set()
    await bob.until(lambda: bob.told("removed"))
    await there.context.tasks.drain()
    await bob.ask(Join(room="new"))
    assert await present(ann, "new") == ["ann", "bob"]


async def test_listeners_hear_that_another_process_removed_their_room(
    two: tuple[Node, Node], chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    await Room.objects.acreate(application=chat, name="den", persistent=False)
    ann = await Client.named(there, "ann", "den")
    sue, joe = await Client.named(here, "sue"), await Client.named(here, "joe")
    await sue.ask(Subscribe(room="den"))
    deleting = Stop(there.context.presence.close_group)
    closed = asyncio.Event()

    async def close_and_wait(group: str) -> bool:
        answer = await there_close(group)
        closed.set()
        await deleting.opened.wait()
        return answer

    there_close = there.context.presence.close_group
    monkeypatch.setattr(there.context.presence, "close_group", close_and_wait)
    await ann.ask(Leave(room="den"))
    await soon(closed)
    joining = asyncio.ensure_future(joe.ask(Join(room="den")))
    await sue.until(lambda: sue.told("removed"))
    deleting.opened.set()
    await joining
    assert (await joe.say("den", "hello"))["time"]
