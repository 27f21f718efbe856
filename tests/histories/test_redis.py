"""The history in Redis: several processes; a Redis that loses data, restarts, hangs or is down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from django.test import override_settings
from redis.asyncio import Redis

from rooms.histories import redis as module
from rooms.histories.redis import RedisHistory
from rooms.hub.config import RoomConfig
from rooms.protocol import timestamps
from rooms.protocol.errors import Unavailable
from rooms.protocol.events import Message
from rooms.protocol.results import SentData
from rooms.protocol.types import Position
from tests import services
from tests.histories.messages import ANN, RoomMaker, append_and_wait, message


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(redis_url, decode_responses=True)
    yield redis
    await redis.aclose()


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[tuple[RedisHistory, RedisHistory]]:
    """The histories of two processes."""
    both = RedisHistory(url=redis_url), RedisHistory(url=redis_url)
    yield both
    for history in both:
        await history.close()


@pytest.fixture
def history(pair: tuple[RedisHistory, RedisHistory]) -> RedisHistory:
    return pair[0]


async def position(history: RedisHistory, room: RoomConfig) -> Position:
    found = (await history.snapshot(room, None, 0)).position
    assert found is not None
    return found


class Proxy:
    """A proxy between a history and Redis.

    While it ``swallows``, requests are executed, but their replies are lost; ``cuts``: the connection is
    closed once in place of a reply.
    """

    def __init__(self) -> None:
        self.swallows = self.cuts = False
        self.requests = 0
        self.ends: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await asyncio.gather(*self.ends)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ends.append(end := asyncio.get_running_loop().create_future())
        there, back = await asyncio.open_connection("127.0.0.1", services.redis().port)

        async def answer() -> None:
            while data := await there.read(65536):
                if self.cuts:
                    self.cuts = False
                    writer.close()
                elif not self.swallows:
                    writer.write(data)

        answering = asyncio.create_task(answer())
        while data := await reader.read(65536):
            self.requests += b"EVAL" in data
            back.write(data)
        for each in (back, writer):
            each.close()
            await each.wait_closed()
        await answering
        end.set_result(None)


@asynccontextmanager
async def closed(history: RedisHistory) -> AsyncIterator[RedisHistory]:
    """Close the history at the end."""
    try:
        yield history
    finally:
        await history.close()


# Processes ----------------------------------------------------------------------------------------


async def test_the_numbers_of_two_processes_have_no_holes_and_no_duplicates(
    pair: tuple[RedisHistory, RedisHistory], make_room: RoomMaker
) -> None:
    made = [await make_room(name) for name in ("one", "two")]

    async def append(number: int) -> Message:
        room = made[number // 2 % 2]
        return (
            await append_and_wait(pair[number % 2], room, message(b"%d" % number, room=room.name))
        ).message

    appended = await asyncio.gather(*map(append, range(400)))
    for room in made:
        of_room = sorted(
            (each for each in appended if each.room == room.name), key=lambda each: each.seq or 0
        )
        assert await pair[0].messages_after(room, 0) == of_room
        assert [each.seq for each in of_room] == list(range(1, 201))
        for process in (0, 1):
            own = [number for each in of_room if (number := int(bytes(each.data))) % 2 == process]
            assert own == sorted(own)


async def test_a_key_holds_in_every_process_and_after_a_restart(
    pair: tuple[RedisHistory, RedisHistory], room: RoomConfig, redis_url: str
) -> None:
    appended = await asyncio.gather(
        *(append_and_wait(pair[n % 2], room, message(b"%d" % n), "k") for n in range(8))
    )
    assert sorted(each.duplicate for each in appended) == [False] + [True] * 7
    assert {each.message.seq for each in appended} == {1}
    later = RedisHistory(url=redis_url)
    first = appended[0].message
    assert await later.find(room, ANN.id, "k") == SentData(seq=first.seq, time=first.time)
    assert (await append_and_wait(later, room, message(), "k")).duplicate
    assert await position(later, room) == await position(pair[0], room)
    await later.close()


async def test_sites_that_share_a_redis_are_separated_by_their_prefixes(
    history: RedisHistory, room: RoomConfig, redis_url: str
) -> None:
    other = RedisHistory(url=redis_url, prefix="other")
    await append_and_wait(history, room, message())
    assert (await position(other, room)).seq == 0
    await other.close()


async def test_appends_share_a_round_trip_and_fail_alone(
    history: RedisHistory, room: RoomConfig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[int] = []
    send = history._calls._write

    async def counted(calls: Any) -> Any:
        trips.append(len(calls))
        return await send(calls)

    monkeypatch.setattr(history._calls, "_write", counted)
    await redis.hset("rooms:history:77:meta", "seq", "not a number")
    broken = RoomConfig(**{name: getattr(room, name) for name in RoomConfig.__slots__} | {"id": 77})
    appends = [append_and_wait(history, room, message()) for _ in range(20)]
    appended = await asyncio.gather(
        *appends, append_and_wait(history, broken, message()), return_exceptions=True
    )
    assert isinstance(appended[-1], Unavailable)
    assert [each.message.seq for each in appended[:-1]] == list(range(1, 21))  # type: ignore[union-attr]
    assert trips == [21]


# Keys and retention ----------------------------------------------------------------------------------


async def test_a_deleted_room_leaves_no_key(history: RedisHistory, room: RoomConfig, redis: Redis) -> None:
    before = await position(history, room)
    await append_and_wait(history, room, message(state=True), "k")
    await history.forget(room.id)
    assert await redis.keys("*") == []
    assert (await position(history, room)).epoch != before.epoch


async def test_expired_keys_are_deleted_by_later_appends(
    history: RedisHistory, make_room: RoomMaker, redis: Redis
) -> None:
    room = await make_room(history_size=2)
    used, order = (f"rooms:history:{room.id}:{part}" for part in ("used", "order"))
    for number in range(5):
        await append_and_wait(history, room, message(time=timestamps.ago(23 * 3600)), f"old {number}")
    assert (await redis.hlen(used), await redis.llen(order)) == (5, 5)
    answer = await append_and_wait(history, room, message(b'"again"'), "old 0")
    assert (answer.expired, answer.message.seq, bytes(answer.message.data)) == (True, 1, b'"again"')
    with override_settings(ROOMS={"IDEMPOTENCY_TTL": 22 * 3600}):
        await append_and_wait(history, room, message(), "new 0")
        # The last two are stored with their messages.
        assert (await redis.hlen(used), await redis.llen(order)) == (3, 3)
        for number in range(1, 5):
            await append_and_wait(history, room, message(), f"new {number}")
    assert (await redis.hlen(used), await redis.llen(order)) == (5, 5)
    assert not [key for key in await redis.hkeys(used) if "old" in key]


async def test_an_inactive_room_keeps_its_position_and_loses_its_messages(
    history: RedisHistory, make_room: RoomMaker, redis: Redis
) -> None:
    room = await make_room(history_ttl=60)
    await append_and_wait(history, room, message(state=True), "k")
    ends = {key.rpartition(":")[2]: await redis.ttl(key) for key in await redis.keys("*")}
    assert 0 < ends.pop("log") <= 60
    assert all(60 < ends.pop(part) <= 24 * 3600 for part in ("used", "order"))
    assert ends == {"meta": -1, "state": -1}


# A Redis that loses data --------------------------------------------------------------------------


async def test_a_redis_that_lost_its_data_begins_a_new_epoch(
    history: RedisHistory, room: RoomConfig, redis: Redis
) -> None:
    await append_and_wait(history, room, message(), "k")
    before = await position(history, room)
    await redis.flushall()
    assert await history.positions([room.id]) == {}
    snapshot = await history.snapshot(room, before, 9)
    assert (snapshot.recovered, snapshot.messages) == (False, [])
    assert snapshot.position is not None
    assert snapshot.position.epoch != before.epoch
    assert not (await append_and_wait(history, room, message(), "k")).duplicate


async def test_a_redis_that_restarted_begins_a_new_epoch(
    room: RoomConfig,
) -> None:
    server = services.Redis()
    history = RedisHistory(url=server.url)
    client: Redis = Redis.from_url(server.url)
    for number in range(3):
        await append_and_wait(history, room, message(b"%d" % number, state=number == 0))
    await client.save()
    await append_and_wait(history, room, message(b'"lost"'))
    before = await position(history, room)
    await client.aclose()
    await asyncio.to_thread(server.stop, services.signal.SIGKILL)
    await asyncio.to_thread(server.launch)
    # The old connection is closed.
    with suppress(Unavailable):
        await history.positions([room.id])
    appended = (await append_and_wait(history, room, message(b'"anew"'))).message
    assert appended.seq == 4
    snapshot = await history.snapshot(room, Position(epoch=before.epoch, seq=3), 9)
    assert not snapshot.recovered
    assert [bytes(each.data) for each in snapshot.messages] == [b"0", b"1", b"2", b'"anew"']
    assert len(snapshot.state) == 1
    assert snapshot.position is not None
    assert snapshot.position.epoch != before.epoch
    again = await history.snapshot(room, Position(epoch=snapshot.position.epoch, seq=3), 9)
    assert (again.recovered, [each.seq for each in again.messages]) == (True, [4])
    await history.close()
    await asyncio.to_thread(server.close)


async def test_data_of_an_earlier_epoch_is_not_mixed_with_the_next(
    history: RedisHistory, room: RoomConfig, redis: Redis
) -> None:
    """A Redis that is short of memory may evict any key."""
    await append_and_wait(history, room, message(b"1", state=True), "k")
    await redis.delete(f"rooms:history:{room.id}:meta")
    assert not (await append_and_wait(history, room, message(b"2"), "k")).duplicate
    snapshot = await history.snapshot(room, None, 9)
    assert ([bytes(each.data) for each in snapshot.messages], snapshot.state) == ([b"2"], [])
    await redis.delete(f"rooms:history:{room.id}:log")
    assert (await append_and_wait(history, room, message(b"3"))).message.seq == 2
    assert [each.seq for each in (await history.snapshot(room, None, 9)).messages] == [2]


# A Redis that does not answer ---------------------------------------------------------------------


async def test_a_redis_that_is_down_is_unavailable(room: RoomConfig) -> None:
    history = RedisHistory(url="redis://127.0.0.1:1/0")
    for asking in (
        append_and_wait(history, room, message()),
        history.snapshot(room, None, 9),
        history.page(room, before=None, after=None, limit=9),
        history.messages_after(room, 0),
        history.positions([room.id]),
        history.find(room, ANN.id, "k"),
        history.forget(room.id),
    ):
        with pytest.raises(Unavailable) as raised:
            await asking
        assert raised.value.retry
        assert "127.0.0.1" not in raised.value.message
    await history.close()


async def test_a_redis_that_hangs_is_unavailable(room: RoomConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    server = services.redis("frozen")
    async with closed(RedisHistory(url=server.url)) as history:
        before = (await append_and_wait(history, room, message())).message.seq or 0
        with server.frozen():
            for asking in (
                append_and_wait(history, room, message(), "k"),
                history.snapshot(room, None, 9),
                history.messages_after(room, 0),
                history.positions([room.id]),
            ):
                with pytest.raises(Unavailable):
                    await asking
        # The append may have been executed or not: either way the message is stored once.
        assert (await append_and_wait(history, room, message(), "k")).message.seq == before + 1
        assert (await append_and_wait(history, room, message(), "k")).duplicate


async def test_an_append_whose_reply_was_lost_is_not_stored_twice(
    room: RoomConfig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    proxy = Proxy()
    async with proxy as url, closed(RedisHistory(url=url)) as history:
        await append_and_wait(history, room, message())
        requests = proxy.requests
        proxy.swallows = True
        with pytest.raises(Unavailable):
            await append_and_wait(history, room, message(b'"late"'), "k")
        assert proxy.requests == requests + 1
        proxy.swallows = False
        answer = await append_and_wait(history, room, message(b'"late"'), "k")
        assert (answer.duplicate, answer.message.seq) == (True, 2)
        assert await redis.hget(f"rooms:history:{room.id}:meta", "seq") == "2"


async def test_an_append_whose_connection_was_closed_is_not_repeated(room: RoomConfig) -> None:
    """Without a key, a repeated append would be stored twice."""
    proxy = Proxy()
    async with proxy as url, closed(RedisHistory(url=url)) as history:
        await append_and_wait(history, room, message())
        proxy.cuts = True
        with pytest.raises(Unavailable):
            await append_and_wait(history, room, message())
        assert (await append_and_wait(history, room, message())).message.seq == 3


async def test_an_append_that_timed_out_in_the_queue_is_not_executed(
    history: RedisHistory, room: RoomConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, entered, send = asyncio.Event(), asyncio.Event(), history._calls._write

    async def holds(calls: Any) -> Any:
        entered.set()
        await held.wait()
        return await send(calls)

    monkeypatch.setattr(history._calls, "_write", holds)
    monkeypatch.setattr(history._calls, "_timeout", 0.2)
    first = asyncio.ensure_future(append_and_wait(history, room, message(b"1")))
    await entered.wait()
    with pytest.raises(Unavailable):
        await append_and_wait(history, room, message(b"2"))
    monkeypatch.setattr(history._calls, "_timeout", 20)
    with pytest.raises(Unavailable):
        await first
    last = asyncio.ensure_future(append_and_wait(history, room, message(b"3")))
    held.set()
    await last
    assert [bytes(each.data) for each in await history.messages_after(room, 0)] == [b"1", b"3"]
