"""Comparing positions and fetching what is missing, with every history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import msgspec
import pytest
from msgspec import Raw
from redis.asyncio import Redis

from rooms import clock
from rooms.catalogue import RoomRecord, group_of
from rooms.conf import Backend, get_settings
from rooms.engine import gaps, heartbeat
from rooms.engine.directory import LiveRoom
from rooms.engine.engine import Engine
from rooms.errors import CloseCode, InternalError, Unavailable
from rooms.events import Join, Message, Position
from rooms.histories.base import History
from rooms.histories.database import DatabaseHistory
from rooms.models import Application, Room
from rooms.protocols import Native
from tests.engine.clients import PATIENCE, Client, MakeEngine, refused

EVERY = pytest.mark.parametrize("policy", ["memory", "database", "redis"])


def with_redis(url: str) -> dict[str, Backend]:
    """The histories of a site with all of them."""
    redis: Backend = {"BACKEND": "rooms.histories.redis.RedisHistory", "OPTIONS": {"url": url}}
    return {**get_settings().history, "redis": redis}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "GAP_SECONDS", 0)


@pytest.fixture
async def engine(make_engine: MakeEngine, redis_url: str) -> Engine:
    return await make_engine(history=with_redis(redis_url))


async def room_with(chat: Application, policy: str, name: str = "kept", **fields: Any) -> Room:
    return await Room.objects.acreate(application=chat, name=name, history=policy, **fields)


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

    def __init__(self, engine: Engine, room: Room, queued: Callable[[], bool]) -> None:
        self.engine = engine
        self.group = group_of(room.pk)
        self.queued = queued
        self.begun = self.read = False
        history = engine.parts.histories[room.history]
        self._after = history.after
        history.after = self._noted  # type: ignore[method-assign]

    async def fetch(self) -> None:
        self.begun = True
        self.engine.gaps.found(self.group, 1)
        async with asyncio.timeout(PATIENCE):
            while not (self.read or self.queued()):  # noqa: ASYNC110 (a queue tells nobody what comes in)
                await asyncio.sleep(0.001)

    async def _noted(self, record: RoomRecord, seq: int) -> list[Message]:
        messages = await self._after(record, seq)
        self.read = True
        return messages


# In memory nothing can come between storing a message and answering.
@pytest.mark.parametrize("policy", ["database", "redis"])
async def test_the_answer_comes_first_even_when_a_fetch_reads_the_message_before_it(
    engine: Engine, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await room_with(chat, policy)
    history: Any = engine.parts.histories[policy]
    ann = await Client.named(engine, "ann", "kept")
    if policy == "database":
        ledger, loop = history._ledger, asyncio.get_running_loop()
        fetching = Fetching(engine, room, lambda: bool(ledger._queue.qsize()))
        write = ledger._write

        def written(items: Any) -> Any:
            results = write(items)
            asyncio.run_coroutine_threadsafe(fetching.fetch(), loop).result(PATIENCE)
            return results

        monkeypatch.setattr(ledger, "_write", written)
    else:
        pipe = history._pipe
        fetching = Fetching(engine, room, lambda: bool(pipe._waiting))
        answers = pipe._answers

        async def answered(calls: Any) -> Any:
            results = await answers(calls)
            if not fetching.begun:
                await fetching.fetch()
            return results

        monkeypatch.setattr(pipe, "_answers", answered)
    await ann.say("kept", 1)
    await ann.until(lambda: ann.messages() == [1])
    assert fetching.begun
    in_front(ann, 1)


@EVERY
async def test_what_nobody_hinted_at_is_found_when_positions_are_compared(
    engine: Engine, chat: Application, policy: str
) -> None:
    await room_with(chat, policy)
    ann = await Client.named(engine, "ann", "kept")
    live = engine.parts.directory.known_room("chat", "kept")
    assert live is not None
    said = await engine.messages.publish(live, "hi")
    await engine.parts.histories[policy].append(live.record, said)
    await engine.gaps.check()
    await ann.until(lambda: len(ann.messages()) == 2)
    assert [frame["seq"] for frame in ann.told("message")] == [1, 2]


async def test_one_question_for_all_rooms_of_a_history(
    engine: Engine, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = [await room_with(chat, "database", f"room {number}") for number in range(5)]
    asked: list[list[int]] = []

    async def positions(self: History, ids: list[int]) -> dict[int, Position]:
        asked.append(sorted(ids))
        return {}

    await Client.named(engine, "ann", *(room.name for room in rooms))
    monkeypatch.setattr(DatabaseHistory, "positions", positions)
    await engine.gaps.check()
    await engine.parts.tasks.settle()
    assert asked == [sorted(room.pk for room in rooms)]


async def test_a_history_that_does_not_answer_holds_up_no_other(
    engine: Engine, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    for policy in ("memory", "database", "redis"):
        await room_with(chat, policy, policy)
    ann = await Client.named(engine, "ann", "memory", "database", "redis")
    released = asyncio.Event()
    histories, times = engine.parts.histories, 0

    async def hangs(ids: Any) -> dict[int, Position]:
        nonlocal times
        times += 1
        await released.wait()
        raise Unavailable("not now")

    async def fails(ids: Any) -> dict[int, Position]:
        raise Unavailable("not now")

    monkeypatch.setattr(histories["memory"], "positions", hangs)
    monkeypatch.setattr(histories["redis"], "positions", fails)
    live = engine.parts.directory.known_room("chat", "database")
    assert live is not None
    said = await engine.messages.publish(live, 1)
    await histories["database"].append(live.record, said)
    try:
        for _ in range(3):
            await engine.gaps.check()
        await ann.until(lambda: len(ann.messages()) == 2)
        # Nor is one asked again that has not answered yet.
        assert times == 1
    finally:
        released.set()
    await engine.parts.tasks.settle()
    await engine.gaps.check()
    await engine.parts.tasks.settle()
    assert times == 2


def test_a_lost_hint_is_repaired_within_five_seconds() -> None:
    """At the latest: the longest pause, the tick that comes too late for it, and what a gap waits for."""
    assert gaps.CHECK_SECONDS * 1.4 + heartbeat.TICK_SECONDS + gaps.GAP_SECONDS < 5


async def test_a_history_that_lost_what_it_had_is_joined_again(
    engine: Engine, chat: Application, redis_url: str
) -> None:
    await room_with(chat, "redis")
    ann, bob = await Client.named(engine, "ann", "kept"), await Client.named(engine, "bob", "kept")
    for number in range(3):
        await ann.say("kept", number)
    await engine.gaps.check()
    await engine.parts.tasks.settle()
    await lose_everything(redis_url)
    assert (await ann.say("kept", "anew"))["seq"] == 1
    await engine.gaps.check()
    await engine.parts.tasks.settle()
    assert (ann.closed, bob.closed) == (CloseCode.RESYNC, CloseCode.RESYNC)
    ann.disconnect()
    eve = await Client.named(engine, "eve")
    joined = await eve.ask(Join(room="kept", since=Position(epoch="another", seq=3)))
    assert joined["recovered"] is False
    assert [each["data"] for each in joined["messages"]] == ["anew"]
    await eve.say("kept", "live")
    assert eve.messages() == ["live"]
    # Once is enough.
    await engine.gaps.check()
    await engine.parts.tasks.settle()
    assert eve.closed is None


async def lose_everything(redis_url: str) -> None:
    redis = Redis.from_url(redis_url)
    await redis.flushall()
    await redis.aclose()


async def test_that_a_history_lost_what_it_had_shows_before_the_first_comparison(
    engine: Engine, chat: Application, redis_url: str
) -> None:
    room = await Missed.room(engine, chat, "redis")
    await room.said(1, 2, 3)
    ann, bob = await Client.named(engine, "ann", "kept"), await Client.named(engine, "bob", "kept")
    await lose_everything(redis_url)
    for number in range(1, 6):
        assert (await ann.say("kept", number))["seq"] == number
    await room.compare()
    assert (ann.closed, bob.closed) == (CloseCode.RESYNC, CloseCode.RESYNC)


async def test_that_a_history_lost_what_it_had_shows_to_those_who_are_told_nothing_of_the_past(
    engine: Engine, chat: Application, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a room where nothing was said before they came."""
    monkeypatch.setattr(Native, "tells_past", "nothing")
    room = await Missed.room(engine, chat, "redis")
    ann = await Client.named(engine, "ann", "kept")
    await ann.say("kept", "before")
    await lose_everything(redis_url)
    await ann.say("kept", "after")
    await room.compare()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, ["before"])


async def test_who_comes_into_a_room_that_was_empty_when_its_history_was_lost_stays(
    engine: Engine, chat: Application, redis_url: str
) -> None:
    room = await Missed.room(engine, chat, "redis")
    ann, bob = await Client.named(engine, "ann", "kept"), await Client.named(engine, "bob")
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

    def __init__(self, engine: Engine, live: LiveRoom) -> None:
        self.engine = engine
        self.live = live
        self.history = engine.parts.histories[live.record.history]

    @classmethod
    async def room(cls, engine: Engine, chat: Application, policy: str, **fields: Any) -> Self:
        row = await room_with(chat, policy, **fields)
        application = await engine.parts.directory.application("chat")
        assert application is not None
        live = await engine.parts.directory.find_room(application, row.name)
        assert live is not None
        return cls(engine, live)

    async def said(self, *numbers: int, time: str | None = None, hinted: bool = False) -> None:
        """These are said in other processes: the numbers that they get."""
        for number in numbers:
            said = said_elsewhere(number, time)
            kept = (await self.history.append(self.live.record, said)).message
            assert kept.seq == number
            if hinted:
                self.engine.parts.hub.group_send(self.live.group, kept)

    async def compare(self) -> None:
        await self.engine.gaps.check()
        await self.engine.parts.tasks.settle()


def said_elsewhere(number: int, time: str | None = None) -> Message:
    data, time = Raw(b"%d" % number), time or clock.now()
    return Message(room="kept", event="message", data=data, sender=None, seq=None, time=time)


@EVERY
async def test_who_missed_more_than_is_kept_comes_again_and_is_told_so(
    engine: Engine, chat: Application, policy: str
) -> None:
    room = await Missed.room(engine, chat, policy, history_count=2)
    ann = await Client.named(engine, "ann")
    position = (await ann.ask(Join(room="kept")))["position"]
    await room.said(1, hinted=True)
    await room.said(2, 3, 4, 5)
    await room.compare()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, [1])
    assert ann.heard[-1]["type"] == "closing"
    ann.disconnect()
    again = await Client.named(engine, "eve")
    joined = await again.ask(Join(room="kept", since=Position(epoch=position["epoch"], seq=1)))
    assert (joined["recovered"], [each["seq"] for each in joined["messages"]]) == (False, [4, 5])
    await room.said(6, hinted=True)
    await room.compare()
    assert (again.closed, again.messages()) == (None, [6])


@EVERY
async def test_who_is_told_more_by_the_answer_stays(engine: Engine, chat: Application, policy: str) -> None:
    room = await Missed.room(engine, chat, policy, history_count=2)
    ann = await Client.named(engine, "ann", "kept")
    await room.said(1, 2, 3, 4, 5)
    bob = await Client.named(engine, "bob", "kept")
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
    engine: Engine, chat: Application, policy: str
) -> None:
    room = await Missed.room(engine, chat, policy, history_seconds=60)
    ann = await Client.named(engine, "ann", "kept")
    await room.said(1, time=clock.ago(61), hinted=True)
    await room.said(2, 3, time=clock.ago(61))
    await room.compare()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, [1])
    bob = await Client.named(engine, "bob", "kept")
    await room.said(4, hinted=True)
    await room.compare()
    assert (bob.closed, bob.messages()) == (None, [4])


@EVERY
async def test_what_came_too_early_and_is_kept_no_longer_is_told_all_the_same(
    engine: Engine, chat: Application, policy: str
) -> None:
    room = await Missed.room(engine, chat, policy, history_count=2)
    ann = await Client.named(engine, "ann", "kept")
    await room.said(1, 2)
    bob = await Client.named(engine, "bob", "kept")
    hub = engine.parts.hub
    await room.said(3, 4, 5, 6)
    for number in (3, 4):
        hub.group_send(room.live.group, msgspec.structs.replace(said_elsewhere(number), seq=number))
    await engine.parts.tasks.settle()
    assert (ann.closed, ann.messages()) == (CloseCode.RESYNC, [])
    assert (bob.closed, bob.messages()) == (None, [3, 4, 5, 6])


@EVERY
async def test_what_comes_by_itself_while_the_history_is_asked_is_not_missed(
    engine: Engine, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await Missed.room(engine, chat, policy, history_count=2)
    ann = await Client.named(engine, "ann", "kept")
    asks = room.history.after

    async def late(record: RoomRecord, seq: int) -> list[Message]:
        hub = engine.parts.hub
        hub.group_send(room.live.group, msgspec.structs.replace(said_elsewhere(1), seq=1))
        await room.said(2, 3, 4, 5, 6, hinted=True)
        return await asks(record, seq)

    await room.said(1)
    monkeypatch.setattr(room.history, "after", late)
    await room.compare()
    assert (ann.closed, ann.messages()) == (None, [1, 2, 3, 4, 5, 6])


@EVERY
async def test_who_goes_while_the_history_is_asked_leaves_nothing_to_be_told(
    engine: Engine, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await Missed.room(engine, chat, policy, history_count=2)
    ann = await Client.named(engine, "ann", "kept")
    asks = room.history.after
    bob = await Client.named(engine, "bob")

    async def late(record: RoomRecord, seq: int) -> list[Message]:
        found = await asks(record, seq)
        ann.disconnect()
        await bob.ask(Join(room="kept"))
        return found

    await room.said(1, 2, 3, 4)
    monkeypatch.setattr(room.history, "after", late)
    await room.compare()
    assert (bob.closed, bob.messages()) == (None, [])
    await room.said(5, hinted=True)
    assert (bob.closed, bob.messages()) == (None, [5])


async def test_what_was_fetched_from_where_the_room_is_kept_no_more_is_not_told(
    engine: Engine, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await Missed.room(engine, chat, "database")
    ann, bob = await Client.named(engine, "ann", "kept"), await Client.named(engine, "bob")
    asks = room.history.after

    async def late(record: RoomRecord, seq: int) -> list[Message]:
        found = await asks(record, seq)
        await Room.objects.aupdate(history="memory")
        await engine.parts.directory.reload_room(room.live)
        await bob.ask(Join(room="kept"))
        return found

    await room.said(1, 2)
    monkeypatch.setattr(room.history, "after", late)
    await room.compare()
    await bob.say("kept", "new")
    await engine.parts.tasks.settle()
    assert ann.closed == CloseCode.RESYNC
    assert (bob.closed, bob.messages()) == (None, ["new"])


async def test_what_was_fetched_does_not_start_a_group_that_began_anew(
    engine: Engine, chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is on the way in may yet be answered with less."""
    room = await Missed.room(engine, chat, "memory", history_count=2)
    ann, bob = await Client.named(engine, "ann", "kept"), await Client.named(engine, "bob")
    asks, hub = room.history.after, engine.parts.hub

    async def late(record: RoomRecord, seq: int) -> list[Message]:
        ann.disconnect()
        hub.group_add(room.live.group, bob.connection)
        return await asks(record, seq)

    await room.said(1, 2, 3, 4)
    monkeypatch.setattr(room.history, "after", late)
    await room.compare()
    assert (hub.members(room.live.group), hub.position(room.live.group)) == ([bob.connection], None)
    assert (bob.closed, bob.messages()) == (None, [])


# The database still has it.
@pytest.mark.parametrize("policy", ["memory", "redis"])
async def test_what_is_sent_again_and_kept_no_longer_is_answered_and_told_to_nobody(
    engine: Engine, chat: Application, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await Missed.room(engine, chat, policy, history_count=1)
    ann = await Client.named(engine, "ann", "kept")
    first = await ann.say("kept", "said", key="k")
    await ann.say("kept", "more")
    # As after a restart.
    engine.messages._answers.clear()
    told: list[Any] = []
    monkeypatch.setattr(engine.parts.bus, "publish", lambda *arguments, **options: told.append(arguments))
    assert await ann.say("kept", "said once more", key="k") == first
    assert (ann.messages(), told) == (["said", "more"], [])
    assert [each.seq for each in await room.history.after(room.live.record, 0)] == [2]


async def test_a_room_whose_history_is_not_set_up_is_refused_plainly(
    make_engine: MakeEngine, chat: Application, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await make_engine()
    await room_with(chat, "redis")
    ann = await Client.named(engine, "ann")
    error = await refused(InternalError, ann.ask(Join(room="kept")))
    assert "not set up" in error.message
    assert 'ROOMS["HISTORY"]' in caplog.text
