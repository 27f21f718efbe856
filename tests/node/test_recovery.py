"""Comparing positions and fetching what is missing, with every history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import msgspec
import pytest
from msgspec import Raw
from redis.asyncio import Redis

from rooms import models
from rooms.conf import Backend, get_settings
from rooms.histories import database
from rooms.histories.base import History
from rooms.histories.database import DatabaseHistory
from rooms.hub.config import RoomConfig, room_group
from rooms.hub.room import Room
from rooms.models import Application
from rooms.node import periodic, recovery
from rooms.node.node import Node
from rooms.protocol import timestamps
from rooms.protocol.commands import Join
from rooms.protocol.errors import CloseCode, InternalError, Unavailable
from rooms.protocol.events import Message
from rooms.protocol.native import Native
from rooms.protocol.types import Position
from tests.histories.messages import append_and_wait
from tests.node.clients import PATIENCE, Client, MakeEngine, refused

EVERY = pytest.mark.parametrize("policy", ["memory", "database", "redis"])


def with_redis(url: str) -> dict[str, Backend]:
    """The histories of a site with all of them."""
    redis: Backend = {"BACKEND": "rooms.histories.redis.RedisHistory", "OPTIONS": {"url": url}}
    return {**get_settings().histories, "redis": redis}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "GAP_SECONDS", 0)


@pytest.fixture
async def node(make_node: MakeEngine, redis_url: str) -> Node:
    return await make_node(histories=with_redis(redis_url))


async def room_with(chat: Application, policy: str, name: str = "kept", **fields: Any) -> models.Room:
    return await models.Room.objects.acreate(application=chat, name=name, history=policy, **fields)


def in_front(client: Client, number: int) -> None:
    """Check that the answer to a message came before the sender's own copy."""
    kinds = [
        frame["type"]
        for frame in client.heard
        if (frame["type"] == "message" and frame["seq"] == number)
        or (frame["type"] == "reply" and frame["data"].get("seq") == number)
    ]
    assert kinds == ["reply", "message"]


class Fetching:
    """Holds up what was just stored, until a fetch either has read it or stands behind its answer."""

    def __init__(self, node: Node, room: Room, queued: Callable[[], bool]) -> None:
        self.node = node
        self.group = room_group(room.pk)
        self.queued = queued
        self.begun = self.read = False
        history = node.context.histories[room.history]
        self._messages_after = history.messages_after
        history.messages_after = self._noted  # type: ignore[method-assign]

    async def fetch(self) -> None:
        self.begun = True
        self.node.recovery.fill(self.group, 1)
        async with asyncio.timeout(PATIENCE):
            while not (self.read or self.queued()):  # noqa: ASYNC110 (a queue tells nobody what comes in)
                await asyncio.sleep(0.001)

    async def _noted(self, record: RoomConfig, seq: int) -> list[Message]:
        messages = await self._messages_after(record, seq)
        self.read = True
        return messages


# In memory nothing can come between storing a message and answering.
@pytest.mark.parametrize("policy", ["database", "redis"])
async def test_the_answer_comes_first_even_when_a_fetch_reads_the_message_before_it(
    node: Node, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await room_with(chat, policy)
    history: Any = node.context.histories[policy]
    ann = await Client.named(node, "ann", "kept")
    if policy == "database":
        loop, write = asyncio.get_running_loop(), database._append_all
        fetching = Fetching(node, room, lambda: len(history._writes) > 1)

        def written(items: Any) -> Any:
            results = write(items)
            asyncio.run_coroutine_threadsafe(fetching.fetch(), loop).result(PATIENCE)
            return results

        monkeypatch.setattr(database, "_append_all", written)
    else:
        fetching = Fetching(node, room, lambda: len(history._calls) > 1)
        send = history._calls._write

        async def sent(calls: Any) -> Any:
            results = await send(calls)
            if not fetching.begun:
                await fetching.fetch()
            return results

        monkeypatch.setattr(history._calls, "_write", sent)
    await ann.say("kept", 1)
    await ann.until(lambda: ann.messages() == [1])
    assert fetching.begun
    in_front(ann, 1)


@EVERY
async def test_what_nobody_hinted_at_is_found_when_positions_are_compared(
    node: Node, chat: Application, policy: str
) -> None:
    await room_with(chat, policy)
    ann = await Client.named(node, "ann", "kept")
    live = node.context.registry.cached_room("chat", "kept")
    assert live is not None
    said = await node.publisher.publish(live, "hi")
    await append_and_wait(node.context.histories[policy], live.config, said)
    await node.recovery.check()
    await ann.until(lambda: len(ann.messages()) == 2)
    assert [frame["seq"] for frame in ann.told("message")] == [1, 2]


async def test_one_question_for_all_rooms_of_a_history(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = [await room_with(chat, "database", f"room {number}") for number in range(5)]
    asked: list[list[int]] = []

    async def positions(self: History, ids: list[int]) -> dict[int, Position]:
        asked.append(sorted(ids))
        return {}

    await Client.named(node, "ann", *(room.name for room in rooms))
    monkeypatch.setattr(DatabaseHistory, "positions", positions)
    await node.recovery.check()
    await node.context.tasks.drain()
    assert asked == [sorted(room.pk for room in rooms)]


async def test_a_history_that_does_not_answer_holds_up_no_other(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    for policy in ("memory", "database", "redis"):
        await room_with(chat, policy, policy)
    ann = await Client.named(node, "ann", "memory", "database", "redis")
    released = asyncio.Event()
    histories, times = node.context.histories, 0

    async def hangs(ids: Any) -> dict[int, Position]:
        nonlocal times
        times += 1
        await released.wait()
        raise Unavailable("not now")

    async def fails(ids: Any) -> dict[int, Position]:
        raise Unavailable("not now")

    monkeypatch.setattr(histories["memory"], "positions", hangs)
    monkeypatch.setattr(histories["redis"], "positions", fails)
    live = node.context.registry.cached_room("chat", "database")
    assert live is not None
    said = await node.publisher.publish(live, 1)
    await append_and_wait(histories["database"], live.config, said)
    try:
        for _ in range(3):
            await node.recovery.check()
        await ann.until(lambda: len(ann.messages()) == 2)
        # Nor is one asked again that has not answered yet.
        assert times == 1
    finally:
        released.set()
    await node.context.tasks.drain()
    await node.recovery.check()
    await node.context.tasks.drain()
    assert times == 2


def test_a_lost_hint_is_repaired_within_five_seconds() -> None:
    """At the latest: the longest pause, the tick that comes too late for it, and what a gap waits for."""
    assert recovery.CHECK_SECONDS * 1.4 + periodic.TICK_SECONDS + recovery.GAP_SECONDS < 5


async def test_a_history_that_lost_what_it_had_is_joined_again(
    node: Node, chat: Application, redis_url: str
) -> None:
    await room_with(chat, "redis")
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob", "kept")
    for number in range(3):
        await ann.say("kept", number)
    await node.recovery.check()
    await node.context.tasks.drain()
    await lose_everything(redis_url)
    assert (await ann.say("kept", "anew"))["seq"] == 1
    await node.recovery.check()
    await node.context.tasks.drain()
    assert (ann.closed, bob.closed) == (CloseCode.RESYNC, CloseCode.RESYNC)
    ann.disconnect()
    eve = await Client.named(node, "eve")
    joined = await eve.ask(Join(room="kept", since=Position(epoch="another", seq=3)))
    assert joined["recovered"] is False
    assert [each["data"] for each in joined["messages"]] == ["anew"]
    await eve.say("kept", "live")
    assert eve.messages() == ["live"]
    # Once is enough.
    await node.recovery.check()
    await node.context.tasks.drain()
    assert eve.closed is None


async def lose_everything(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    await redis.flushall()
    await redis.aclose()


async def test_that_a_history_lost_what_it_had_shows_before_the_first_comparison(
    node: Node, chat: Application, redis_url: str
) -> None:
    room = await Missed.room(node, chat, "redis")
    await room.said(1, 2, 3)
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob", "kept")
    await lose_everything(redis_url)
    for number in range(1, 6):
        assert (await ann.say("kept", number))["seq"] == number
    await room.compare()
    assert (ann.closed, bob.closed) == (CloseCode.RESYNC, CloseCode.RESYNC)


async def test_that_a_history_lost_what_it_had_shows_to_those_who_are_told_nothing_of_the_past(
    node: Node, chat: Application, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a room where nothing was said before they came."""
    monkeypatch.setattr(Native, "options", replace(Native.options, join_history="none"))
    room = await Missed.room(node, chat, "redis")
    ann = await Client.named(node, "ann", "kept")
    await ann.say("kept", "before")
    await lose_everything(redis_url)
    await ann.say("kept", "after")
    await room.compare()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, ["before"])


async def test_who_comes_into_a_room_that_was_empty_when_its_history_was_lost_stays(
    node: Node, chat: Application, redis_url: str
) -> None:
    room = await Missed.room(node, chat, "redis")
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob")
    await room.said(1, hinted=True)
    await room.compare()
    ann.disconnect()
    await lose_everything(redis_url)
    await bob.ask(Join(room="kept"))
    await room.compare()
    await room.said(1, hinted=True)
    assert (bob.closed, bob.messages()) == (None, [1])


# What is not kept any more -------------------------------------------------------------------------


class Missed:
    """A room that keeps two messages, and hints that get lost."""

    def __init__(self, node: Node, live: Room) -> None:
        self.node = node
        self.live = live
        self.history = node.context.histories[live.config.history]

    @classmethod
    async def room(cls, node: Node, chat: Application, policy: str, **fields: Any) -> Self:
        row = await room_with(chat, policy, **fields)
        application = await node.context.registry.application("chat")
        assert application is not None
        live = await node.context.registry.find_room(application, row.name)
        assert live is not None
        return cls(node, live)

    async def said(self, *numbers: int, time: str | None = None, hinted: bool = False) -> None:
        """These are said in other processes: the numbers that they get."""
        for number in numbers:
            said = said_elsewhere(number, time)
            kept = (await append_and_wait(self.history, self.live.config, said)).message
            assert kept.seq == number
            if hinted:
                self.node.context.hub.group_send(self.live.key, kept)

    async def compare(self) -> None:
        await self.node.recovery.check()
        await self.node.context.tasks.drain()


def said_elsewhere(number: int, time: str | None = None) -> Message:
    data, time = Raw(b"%d" % number), time or timestamps.now()
    return Message(room="kept", event="message", data=data, sender=None, seq=None, time=time)


@EVERY
async def test_who_missed_more_than_is_kept_comes_again_and_is_told_so(
    node: Node, chat: Application, policy: str
) -> None:
    room = await Missed.room(node, chat, policy, history_size=2)
    ann = await Client.named(node, "ann")
    position = (await ann.ask(Join(room="kept")))["position"]
    await room.said(1, hinted=True)
    await room.said(2, 3, 4, 5)
    await room.compare()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, [1])
    assert ann.heard[-1]["type"] == "closing"
    ann.disconnect()
    again = await Client.named(node, "eve")
    joined = await again.ask(Join(room="kept", since=Position(epoch=position["epoch"], seq=1)))
    assert (joined["recovered"], [each["seq"] for each in joined["messages"]]) == (False, [4, 5])
    await room.said(6, hinted=True)
    await room.compare()
    assert (again.closed, again.messages()) == (None, [6])


@EVERY
async def test_who_is_told_more_by_the_answer_stays(node: Node, chat: Application, policy: str) -> None:
    room = await Missed.room(node, chat, policy, history_size=2)
    ann = await Client.named(node, "ann", "kept")
    await room.said(1, 2, 3, 4, 5)
    bob = await Client.named(node, "bob", "kept")
    await room.said(6)
    await room.compare()
    assert (ann.closed, bob.closed) == (CloseCode.RESYNC, None)
    assert (ann.messages(), bob.messages()) == ([], [6])
    await room.said(7, hinted=True)
    assert (ann.messages(), bob.messages()) == ([], [6, 7])
    # He would have missed one if less had been kept.
    await room.said(8, 9, 10)
    await room.compare()
    assert (bob.closed, bob.messages()) == (CloseCode.RESYNC, [6, 7])


@EVERY
async def test_what_grew_too_old_before_it_was_told_is_missed(
    node: Node, chat: Application, policy: str
) -> None:
    room = await Missed.room(node, chat, policy, history_ttl=60)
    ann = await Client.named(node, "ann", "kept")
    await room.said(1, time=timestamps.ago(61), hinted=True)
    await room.said(2, 3, time=timestamps.ago(61))
    await room.compare()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, [1])
    bob = await Client.named(node, "bob", "kept")
    await room.said(4, hinted=True)
    await room.compare()
    assert (bob.closed, bob.messages()) == (None, [4])


@EVERY
async def test_what_came_too_early_and_is_kept_no_longer_is_told_all_the_same(
    node: Node, chat: Application, policy: str
) -> None:
    room = await Missed.room(node, chat, policy, history_size=2)
    ann = await Client.named(node, "ann", "kept")
    await room.said(1, 2)
    bob = await Client.named(node, "bob", "kept")
    hub = node.context.hub
    await room.said(3, 4, 5, 6)
    for number in (3, 4):
        hub.group_send(room.live.key, msgspec.structs.replace(said_elsewhere(number), seq=number))
    await node.context.tasks.drain()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, [])
    assert (bob.closed, bob.messages()) == (None, [3, 4, 5, 6])


@EVERY
async def test_what_comes_by_itself_while_the_history_is_asked_is_not_missed(
    node: Node, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await Missed.room(node, chat, policy, history_size=2)
    ann = await Client.named(node, "ann", "kept")
    asks = room.history.messages_after

    async def late(record: RoomConfig, seq: int) -> list[Message]:
        hub = node.context.hub
        hub.group_send(room.live.key, msgspec.structs.replace(said_elsewhere(1), seq=1))
        await room.said(2, 3, 4, 5, 6, hinted=True)
        return await asks(record, seq)

    await room.said(1)
    monkeypatch.setattr(room.history, "messages_after", late)
    await room.compare()
    assert (ann.closed, ann.messages()) == (None, [1, 2, 3, 4, 5, 6])


@EVERY
async def test_who_goes_while_the_history_is_asked_leaves_nothing_to_be_told(
    node: Node, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await Missed.room(node, chat, policy, history_size=2)
    ann = await Client.named(node, "ann", "kept")
    asks = room.history.messages_after
    bob = await Client.named(node, "bob")

    async def late(record: RoomConfig, seq: int) -> list[Message]:
        found = await asks(record, seq)
        ann.disconnect()
        await bob.ask(Join(room="kept"))
        return found

    await room.said(1, 2, 3, 4)
    monkeypatch.setattr(room.history, "messages_after", late)
    await room.compare()
    assert (bob.closed, bob.messages()) == (None, [])
    await room.said(5, hinted=True)
    assert (bob.closed, bob.messages()) == (None, [5])


async def test_what_was_fetched_from_where_the_room_is_kept_no_more_is_not_told(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await Missed.room(node, chat, "database")
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob")
    asks = room.history.messages_after

    async def late(record: RoomConfig, seq: int) -> list[Message]:
        found = await asks(record, seq)
        await models.Room.objects.aupdate(history="memory")
        await node.context.registry.reload_room(room.live)
        await bob.ask(Join(room="kept"))
        return found

    await room.said(1, 2)
    monkeypatch.setattr(room.history, "messages_after", late)
    await room.compare()
    await bob.say("kept", "new")
    await node.context.tasks.drain()
    assert ann.closed == CloseCode.RESYNC
    assert (bob.closed, bob.messages()) == (None, ["new"])


async def test_what_was_fetched_does_not_start_a_group_that_began_anew(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is on the way in may yet be answered with less."""
    room = await Missed.room(node, chat, "memory", history_size=2)
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob")
    asks, hub = room.history.messages_after, node.context.hub

    async def late(record: RoomConfig, seq: int) -> list[Message]:
        ann.disconnect()
        hub.group_add(room.live.key, bob.connection)
        return await asks(record, seq)

    await room.said(1, 2, 3, 4)
    monkeypatch.setattr(room.history, "messages_after", late)
    await room.compare()
    assert (hub.members(room.live.key), hub.position(room.live.key)) == ([bob.connection], None)
    assert (bob.closed, bob.messages()) == (None, [])


# The database still has it.
@pytest.mark.parametrize("policy", ["memory", "redis"])
async def test_what_is_sent_again_and_kept_no_longer_is_answered_and_told_to_nobody(
    node: Node, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await Missed.room(node, chat, policy, history_size=1)
    ann = await Client.named(node, "ann", "kept")
    first = await ann.say("kept", "said", key="k")
    await ann.say("kept", "more")
    # As after a restart.
    node.messages._answers.clear()
    told: list[Any] = []
    monkeypatch.setattr(node.context.broker, "publish", lambda *arguments, **options: told.append(arguments))
    assert await ann.say("kept", "said once more", key="k") == first
    assert (ann.messages(), told) == (["said", "more"], [])
    assert [each.seq for each in await room.history.messages_after(room.live.config, 0)] == [2]


async def test_a_room_whose_history_is_not_set_up_is_refused_plainly(
    make_node: MakeEngine, chat: Application, caplog: pytest.LogCaptureFixture
) -> None:
    node = await make_node()
    await room_with(chat, "redis")
    ann = await Client.named(node, "ann")
    error = await refused(InternalError, ann.ask(Join(room="kept")))
    assert "not configured" in error.message
    assert 'ROOMS["HISTORIES"]' in caplog.text
