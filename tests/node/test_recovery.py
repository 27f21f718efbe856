"""Positions are compared and missing messages are fetched, with every history."""

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
from rooms.hub.config import RoomConfig
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
from tests.node.clients import PATIENCE, Client, MakeNode, error_of

EVERY_HISTORY = pytest.mark.parametrize("policy", ["memory", "database", "redis"])


def with_redis(url: str) -> dict[str, Backend]:
    """Return the settings of a site with every history."""
    redis: Backend = {"BACKEND": "rooms.histories.redis.RedisHistory", "OPTIONS": {"url": url}}
    return {**get_settings().histories, "redis": redis}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "GAP_SECONDS", 0)


@pytest.fixture
async def node(make_node: MakeNode, redis_url: str) -> Node:
    return await make_node(histories=with_redis(redis_url))


async def create_room(chat: Application, policy: str, name: str = "kept", **fields: Any) -> models.Room:
    return await models.Room.objects.acreate(application=chat, name=name, history=policy, **fields)


def check_reply_first(client: Client, number: int) -> None:
    """Check that the reply to a message precedes the sender's own copy."""
    kinds = [
        frame["type"]
        for frame in client.frames
        if (frame["type"] == "message" and frame["seq"] == number)
        or (frame["type"] == "reply" and frame["data"].get("seq") == number)
    ]
    assert kinds == ["reply", "message"]


class Fetching:
    """Delays what was just stored, until a fetch has either read it or queued behind its reply."""

    def __init__(self, node: Node, room: Room, queued: Callable[[], bool]) -> None:
        self.node = node
        self.room = room
        self.queued = queued
        self.begun = self.read = False
        history = node.context.histories[room.config.history]
        self._messages_after = history.messages_after
        history.messages_after = self._noted  # type: ignore[method-assign]

    async def fetch(self) -> None:
        self.begun = True
        self.node.recovery.fill(self.room, 1)
        async with asyncio.timeout(PATIENCE):
            while not (self.read or self.queued()):  # noqa: ASYNC110 (a queue has no event for its items)
                await asyncio.sleep(0.001)

    async def _noted(self, room: RoomConfig, seq: int) -> list[Message]:
        messages = await self._messages_after(room, seq)
        self.read = True
        return messages


# In memory nothing happens between storing a message and its acknowledgement.
@pytest.mark.parametrize("policy", ["database", "redis"])
async def test_the_reply_comes_first_although_a_fetch_reads_the_message_before_it(
    node: Node, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_room(chat, policy)
    history: Any = node.context.histories[policy]
    ann = await Client.named(node, "ann", "kept")
    room = node.context.registry.cached_room("chat", "kept")
    assert room is not None
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
    await ann.send("kept", 1)
    await ann.until(lambda: ann.messages() == [1])
    assert fetching.begun
    check_reply_first(ann, 1)


@EVERY_HISTORY
async def test_a_message_without_hint_is_found_when_positions_are_compared(
    node: Node, chat: Application, policy: str
) -> None:
    await create_room(chat, policy)
    ann = await Client.named(node, "ann", "kept")
    room = node.context.registry.cached_room("chat", "kept")
    assert room is not None
    message = await node.publisher.publish(room, "hi")
    await append_and_wait(node.context.histories[policy], room.config, message)
    await node.recovery.check()
    await ann.until(lambda: len(ann.messages()) == 2)
    assert [frame["seq"] for frame in ann.received("message")] == [1, 2]


async def test_one_query_compares_all_rooms_of_a_history(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = [await create_room(chat, "database", f"room {number}") for number in range(5)]
    queried: list[list[int]] = []

    async def positions(self: History, ids: list[int]) -> dict[int, Position]:
        queried.append(sorted(ids))
        return {}

    await Client.named(node, "ann", *(room.name for room in rooms))
    monkeypatch.setattr(DatabaseHistory, "positions", positions)
    await node.recovery.check()
    await node.context.tasks.drain()
    assert queried == [sorted(room.pk for room in rooms)]


async def test_a_history_that_does_not_answer_delays_no_other(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    for policy in ("memory", "database", "redis"):
        await create_room(chat, policy, policy)
    ann = await Client.named(node, "ann", "memory", "database", "redis")
    answered = asyncio.Event()
    histories, times = node.context.histories, 0

    async def hangs(ids: Any) -> dict[int, Position]:
        nonlocal times
        times += 1
        await answered.wait()
        raise Unavailable("not now")

    async def fails(ids: Any) -> dict[int, Position]:
        raise Unavailable("not now")

    monkeypatch.setattr(histories["memory"], "positions", hangs)
    monkeypatch.setattr(histories["redis"], "positions", fails)
    room = node.context.registry.cached_room("chat", "database")
    assert room is not None
    message = await node.publisher.publish(room, 1)
    await append_and_wait(histories["database"], room.config, message)
    try:
        for _ in range(3):
            await node.recovery.check()
        await ann.until(lambda: len(ann.messages()) == 2)
        # A history that has not answered is not asked again.
        assert times == 1
    finally:
        answered.set()
    await node.context.tasks.drain()
    await node.recovery.check()
    await node.context.tasks.drain()
    assert times == 2


def test_a_lost_hint_is_repaired_within_five_seconds() -> None:
    """At the latest: the longest interval, one tick that is late, and the delay of a gap."""
    assert recovery.CHECK_SECONDS * 1.4 + periodic.TICK_SECONDS + recovery.GAP_SECONDS < 5


async def test_members_are_closed_to_resync_when_the_history_begins_a_new_epoch(
    node: Node, chat: Application, redis_url: str
) -> None:
    await create_room(chat, "redis")
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob", "kept")
    for number in range(3):
        await ann.send("kept", number)
    await node.recovery.check()
    await node.context.tasks.drain()
    await flush_redis(redis_url)
    assert (await ann.send("kept", "new epoch"))["seq"] == 1
    await node.recovery.check()
    await node.context.tasks.drain()
    assert (ann.closed, bob.closed) == (CloseCode.RESYNC, CloseCode.RESYNC)
    ann.disconnect()
    eve = await Client.named(node, "eve")
    joined = await eve.request(Join(room="kept", since=Position(epoch="another", seq=3)))
    assert joined["recovered"] is False
    assert [each["data"] for each in joined["messages"]] == ["new epoch"]
    await eve.send("kept", "live")
    assert eve.messages() == ["live"]
    # One resync is enough.
    await node.recovery.check()
    await node.context.tasks.drain()
    assert eve.closed is None


async def flush_redis(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    await redis.flushall()
    await redis.aclose()


async def test_a_new_epoch_is_found_by_the_first_comparison(
    node: Node, chat: Application, redis_url: str
) -> None:
    remote = await RemotePublisher.create(node, chat, "redis")
    await remote.publish(1, 2, 3)
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob", "kept")
    await flush_redis(redis_url)
    for number in range(1, 6):
        assert (await ann.send("kept", number))["seq"] == number
    await remote.compare()
    assert (ann.closed, bob.closed) == (CloseCode.RESYNC, CloseCode.RESYNC)


async def test_a_new_epoch_is_found_for_members_without_join_history(
    node: Node, chat: Application, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a room without messages before they joined."""
    monkeypatch.setattr(Native, "options", replace(Native.options, join_history="none"))
    remote = await RemotePublisher.create(node, chat, "redis")
    ann = await Client.named(node, "ann", "kept")
    await ann.send("kept", "before")
    await flush_redis(redis_url)
    await ann.send("kept", "after")
    await remote.compare()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, ["before"])


async def test_a_member_that_joins_after_the_new_epoch_stays(
    node: Node, chat: Application, redis_url: str
) -> None:
    remote = await RemotePublisher.create(node, chat, "redis")
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob")
    await remote.publish(1, hinted=True)
    await remote.compare()
    ann.disconnect()
    await flush_redis(redis_url)
    await bob.request(Join(room="kept"))
    await remote.compare()
    await remote.publish(1, hinted=True)
    assert (bob.closed, bob.messages()) == (None, [1])


# Messages that the history has no more -------------------------------------------------------------


class RemotePublisher:
    """A room whose messages other processes publish, and whose hints are lost."""

    def __init__(self, node: Node, room: Room) -> None:
        self.node = node
        self.room = room
        self.history = node.context.histories[room.config.history]

    @classmethod
    async def create(cls, node: Node, chat: Application, policy: str, **fields: Any) -> Self:
        row = await create_room(chat, policy, **fields)
        application = await node.context.registry.application("chat")
        assert application is not None
        room = await node.context.registry.find_room(application, row.name)
        assert room is not None
        return cls(node, room)

    async def publish(self, *numbers: int, time: str | None = None, hinted: bool = False) -> None:
        """Other processes publish messages, which get these numbers."""
        for number in numbers:
            sent = remote_message(number, time)
            stored = (await append_and_wait(self.history, self.room.config, sent)).message
            assert stored.seq == number
            if hinted:
                self.room.broadcast(stored)

    async def compare(self) -> None:
        await self.node.recovery.check()
        await self.node.context.tasks.drain()


def remote_message(number: int, time: str | None = None) -> Message:
    data, time = Raw(b"%d" % number), time or timestamps.now()
    return Message(room="kept", event="message", data=data, sender=None, seq=None, time=time)


@EVERY_HISTORY
async def test_a_member_that_missed_more_than_the_history_has_is_closed_to_resync(
    node: Node, chat: Application, policy: str
) -> None:
    remote = await RemotePublisher.create(node, chat, policy, history_size=2)
    ann = await Client.named(node, "ann")
    position = (await ann.request(Join(room="kept")))["position"]
    await remote.publish(1, hinted=True)
    await remote.publish(2, 3, 4, 5)
    await remote.compare()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, [1])
    assert ann.frames[-1]["type"] == "closing"
    ann.disconnect()
    again = await Client.named(node, "eve")
    joined = await again.request(Join(room="kept", since=Position(epoch=position["epoch"], seq=1)))
    assert (joined["recovered"], [each["seq"] for each in joined["messages"]]) == (False, [4, 5])
    await remote.publish(6, hinted=True)
    await remote.compare()
    assert (again.closed, again.messages()) == (None, [6])


@EVERY_HISTORY
async def test_a_member_whose_join_reply_covers_the_missing_messages_stays(
    node: Node, chat: Application, policy: str
) -> None:
    remote = await RemotePublisher.create(node, chat, policy, history_size=2)
    ann = await Client.named(node, "ann", "kept")
    await remote.publish(1, 2, 3, 4, 5)
    bob = await Client.named(node, "bob", "kept")
    await remote.publish(6)
    await remote.compare()
    assert (ann.closed, bob.closed) == (CloseCode.RESYNC, None)
    assert (ann.messages(), bob.messages()) == ([], [6])
    await remote.publish(7, hinted=True)
    assert (ann.messages(), bob.messages()) == ([], [6, 7])
    # Bob misses a message that the history has no more.
    await remote.publish(8, 9, 10)
    await remote.compare()
    assert (bob.closed, bob.messages()) == (CloseCode.RESYNC, [6, 7])


@EVERY_HISTORY
async def test_messages_that_expired_before_their_fetch_are_missed(
    node: Node, chat: Application, policy: str
) -> None:
    remote = await RemotePublisher.create(node, chat, policy, history_ttl=60)
    ann = await Client.named(node, "ann", "kept")
    await remote.publish(1, time=timestamps.ago(61), hinted=True)
    await remote.publish(2, 3, time=timestamps.ago(61))
    await remote.compare()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, [1])
    bob = await Client.named(node, "bob", "kept")
    await remote.publish(4, hinted=True)
    await remote.compare()
    assert (bob.closed, bob.messages()) == (None, [4])


@EVERY_HISTORY
async def test_early_messages_are_sent_although_the_history_has_them_no_more(
    node: Node, chat: Application, policy: str
) -> None:
    remote = await RemotePublisher.create(node, chat, policy, history_size=2)
    ann = await Client.named(node, "ann", "kept")
    await remote.publish(1, 2)
    bob = await Client.named(node, "bob", "kept")
    await remote.publish(3, 4, 5, 6)
    for number in (3, 4):
        remote.room.broadcast(msgspec.structs.replace(remote_message(number), seq=number))
    await node.context.tasks.drain()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, [])
    assert (bob.closed, bob.messages()) == (None, [3, 4, 5, 6])


@EVERY_HISTORY
async def test_messages_that_arrive_during_the_fetch_are_not_missed(
    node: Node, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = await RemotePublisher.create(node, chat, policy, history_size=2)
    ann = await Client.named(node, "ann", "kept")
    read = remote.history.messages_after

    async def late(config: RoomConfig, seq: int) -> list[Message]:
        remote.room.broadcast(msgspec.structs.replace(remote_message(1), seq=1))
        await remote.publish(2, 3, 4, 5, 6, hinted=True)
        return await read(config, seq)

    await remote.publish(1)
    monkeypatch.setattr(remote.history, "messages_after", late)
    await remote.compare()
    assert (ann.closed, ann.messages()) == (None, [1, 2, 3, 4, 5, 6])


@EVERY_HISTORY
async def test_fetched_messages_are_not_sent_to_a_member_that_joined_during_the_fetch(
    node: Node, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = await RemotePublisher.create(node, chat, policy, history_size=2)
    ann = await Client.named(node, "ann", "kept")
    read = remote.history.messages_after
    bob = await Client.named(node, "bob")

    async def late(config: RoomConfig, seq: int) -> list[Message]:
        found = await read(config, seq)
        ann.disconnect()
        await bob.request(Join(room="kept"))
        return found

    await remote.publish(1, 2, 3, 4)
    monkeypatch.setattr(remote.history, "messages_after", late)
    await remote.compare()
    assert (bob.closed, bob.messages()) == (None, [])
    await remote.publish(5, hinted=True)
    assert (bob.closed, bob.messages()) == (None, [5])


async def test_messages_fetched_from_the_former_history_of_a_room_are_not_sent(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = await RemotePublisher.create(node, chat, "database")
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob")
    read = remote.history.messages_after

    async def late(config: RoomConfig, seq: int) -> list[Message]:
        found = await read(config, seq)
        await models.Room.objects.aupdate(history="memory")
        await node.context.registry.reload_room(remote.room)
        await bob.request(Join(room="kept"))
        return found

    await remote.publish(1, 2)
    monkeypatch.setattr(remote.history, "messages_after", late)
    await remote.compare()
    await bob.send("kept", "new")
    await node.context.tasks.drain()
    assert ann.closed == CloseCode.RESYNC
    assert (bob.closed, bob.messages()) == (None, ["new"])


async def test_fetched_messages_do_not_start_a_room_that_was_reset(
    node: Node, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply to a join that is under way may still cover less."""
    remote = await RemotePublisher.create(node, chat, "memory", history_size=2)
    ann, bob = await Client.named(node, "ann", "kept"), await Client.named(node, "bob")
    read = remote.history.messages_after

    async def late(config: RoomConfig, seq: int) -> list[Message]:
        ann.disconnect()
        remote.room.add(bob.connection)
        return await read(config, seq)

    await remote.publish(1, 2, 3, 4)
    monkeypatch.setattr(remote.history, "messages_after", late)
    await remote.compare()
    assert (list(remote.room.members), remote.room.position) == ([bob.connection], None)
    assert (bob.closed, bob.messages()) == (None, [])


# The database has it still.
@pytest.mark.parametrize("policy", ["memory", "redis"])
async def test_a_retry_of_an_expired_message_is_acknowledged_and_not_broadcast(
    node: Node, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = await RemotePublisher.create(node, chat, policy, history_size=1)
    ann = await Client.named(node, "ann", "kept")
    acknowledged = await ann.send("kept", "first", key="k")
    await ann.send("kept", "more")
    # As after a restart.
    node.messages._acknowledged.clear()
    published: list[Any] = []
    monkeypatch.setattr(
        node.context.broker, "publish", lambda *arguments, **options: published.append(arguments)
    )
    assert await ann.send("kept", "first again", key="k") == acknowledged
    assert (ann.messages(), published) == (["first", "more"], [])
    assert [each.seq for each in await remote.history.messages_after(remote.room.config, 0)] == [2]


async def test_a_join_is_refused_when_the_history_of_the_room_is_not_configured(
    make_node: MakeNode, chat: Application, caplog: pytest.LogCaptureFixture
) -> None:
    node = await make_node()
    await create_room(chat, "redis")
    ann = await Client.named(node, "ann")
    error = await error_of(InternalError, ann.request(Join(room="kept")))
    assert "not configured" in error.message
    assert 'ROOMS["HISTORIES"]' in caplog.text
