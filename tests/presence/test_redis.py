"""Presence in Redis: several processes, leases, a Redis that loses data or is down."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from redis.asyncio import Redis

from rooms.presence import Arrival, Departure
from rooms.presence.base import GroupFull, NameInUse
from rooms.presence.redis import RedisPresence
from rooms.protocol.errors import Unavailable
from rooms.protocol.types import User
from tests import services

pytestmark = pytest.mark.usefixtures("sweeps_at_once")

ANN = User(name="ann", id="1", guest=False)
BOB = User(name="bob", id="guest-2", guest=True)
EVE = User(name="eve", id="guest-3", guest=True)

# Only a test that waits for what never comes takes this long.
PATIENCE = 60


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(redis_url, decode_responses=True)
    yield redis
    await redis.aclose()


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[tuple[RedisPresence, RedisPresence]]:
    """The presence of two processes."""
    both = RedisPresence(url=redis_url), RedisPresence(url=redis_url)
    yield both
    for presence in both:
        await presence.close()


async def expire(redis: Redis, presence: RedisPresence) -> None:
    """Let the lease of a process expire."""
    await redis.zadd("rooms:nodes", {presence.node: 1})


async def back(presence: RedisPresence) -> None:
    """Wait until the resync with Redis is complete."""
    async with asyncio.timeout(PATIENCE):
        while presence._resyncing is not None:
            await asyncio.wait([presence._resyncing])


async def test_the_first_heartbeat_of_a_process_sweeps_expired_ones(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    dead, here = pair
    await dead.add("g", "a1", ANN)
    await expire(redis, dead)
    await here.add("g", "b1", BOB)
    assert await here.heartbeat() == [Departure("g", ANN)]
    assert await here.heartbeat() == []


async def test_a_redis_that_lost_its_data_gets_it_again(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    here, there = pair
    await here.add("g", "a1", ANN)
    await here.add("g", "b1", BOB)
    await here.remove("g", "b1", BOB)
    await redis.flushall()
    assert await there.counts(["g"]) == [0]
    await here.heartbeat()
    await back(here)
    assert (await there.members("g")).users == [ANN]
    # No process had reported her departure.
    assert await here.heartbeat() == []


async def test_removed_connections_are_not_written_again(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    here, _ = pair
    await here.add("g", "a1", ANN)
    await here.remove_all("g", {"a1": ANN})
    await redis.flushall()
    await here.heartbeat()
    await back(here)
    assert await here.counts(["g"]) == [0]


async def test_nothing_is_left_when_all_users_left(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    here, there = pair
    for presence, connection, user in ((here, "a1", ANN), (there, "a2", ANN), (there, "b1", BOB)):
        await presence.add("g", connection, user, unique=user.guest)
        await presence.start_grace("g", connection, user)
    await here.remove("g", "a1", ANN)
    await there.remove("g", "a2", ANN)
    await there.remove("g", "b1", BOB)
    assert await redis.keys("*") == ["rooms:nodes"]


async def test_sites_that_share_a_redis_are_separated_by_their_prefixes(
    pair: tuple[RedisPresence, RedisPresence], redis_url: str
) -> None:
    here, _ = pair
    other = RedisPresence(url=redis_url, prefix="other")
    await here.add("g", "a1", ANN)
    assert await other.add("g", "a1", ANN)
    await other.close()


# Outages of Redis ----------------------------------------------------------------------------------


@pytest.fixture
def own_redis() -> Iterator[services.Redis]:
    """A Redis that the test can stop."""
    redis = services.redis("presence")
    if redis.process is None:
        pytest.skip("the Redis of this run is not ours to stop")
    redis.flush()
    yield redis
    if redis.process is None:
        redis.launch()
    send(redis, signal.SIGCONT)


@pytest.fixture
async def both(own_redis: services.Redis) -> AsyncIterator[tuple[RedisPresence, RedisPresence]]:
    """The presence of two processes, on a Redis that the test can stop."""
    both = RedisPresence(url=own_redis.url), RedisPresence(url=own_redis.url)
    yield both
    for presence in both:
        await presence.close()


def send(redis: services.Redis, what: signal.Signals) -> None:
    assert redis.process is not None
    redis.process.send_signal(what)


async def names_in(presence: RedisPresence, group: str) -> list[str]:
    return [user.name for user in (await presence.members(group)).users]


async def test_a_process_without_connections_is_unavailable_when_redis_is_down() -> None:
    """As a process that only reads: it has no local connections."""
    presence = RedisPresence(url="redis://127.0.0.1:1/0")
    for asking in (presence.members("g"), presence.counts(["g"]), presence.find("g", ["ann"])):
        with pytest.raises(Unavailable) as raised:
            await asking
        assert raised.value.retry
        assert "127.0.0.1" not in raised.value.message
    await presence.close()


async def test_during_an_outage_a_process_uses_its_local_copy(
    own_redis: services.Redis, both: tuple[RedisPresence, RedisPresence]
) -> None:
    here, there = both
    await here.add("g", "a1", ANN)
    await there.add("g", "e1", EVE)
    own_redis.stop(signal.SIGKILL)
    assert await here.add("g", "b1", BOB, limit=2, unique=True)
    assert await names_in(here, "g") == ["ann", "bob"]
    assert await here.counts(["g", "h"]) == [2, 0]
    assert await here.find("g", ["BOB", "eve"]) == {"BOB": BOB}
    with pytest.raises(GroupFull):
        await here.add("g", "x", User(name="x", id="x", guest=True), limit=2)
    with pytest.raises(NameInUse):
        await here.add("g", "x", User(name="Bob", id="x", guest=True), unique=True)
    await here.start_grace("g", "b1", BOB)
    assert not await here.add("g", "b2", BOB)
    assert not await here.remove("g", "b1", BOB)
    assert await here.remove("g", "a1", ANN)
    assert await here.heartbeat() == []
    assert not await here.close_group("empty")
    with pytest.raises(Unavailable):
        await here.expire_node(there.node, 0)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_after_an_outage_all_processes_write_their_connections(
    own_redis: services.Redis, both: tuple[RedisPresence, RedisPresence], how: str
) -> None:
    here, there = both
    for number in range(100):
        user = User(name=f"u{number:02}", id=f"u{number}", guest=True)
        await here.add("many", f"c{number}", user)
    await here.add("g", "a1", ANN)
    await here.add("g", "b1", BOB)
    await there.add("g", "e1", EVE)
    if how == "killed":
        own_redis.stop(signal.SIGKILL)
    else:
        send(own_redis, signal.SIGSTOP)
    await here.remove("g", "a1", ANN)
    await here.start_grace("g", "b1", BOB)
    await here.add("h", "a1", ANN)
    await here.add("passing", "b1", BOB)
    await here.remove("passing", "b1", BOB)
    await there.add("g", "a2", ANN)
    await there.remove("g", "e1", EVE)
    if how == "killed":
        own_redis.launch()
    else:
        send(own_redis, signal.SIGCONT)
    for presence in both:
        await presence.heartbeat()
        await back(presence)
        assert await presence.heartbeat() == []
    for presence in both:
        assert await names_in(presence, "g") == ["ann", "bob"]
        assert await names_in(presence, "h") == ["ann"]
        assert await presence.counts(["passing", "many"]) == [0, 100]
    # Bob is still in grace: a new connection replaces the old one.
    assert not await there.add("g", "b2", BOB)
    assert not await here.remove("g", "b1", BOB)
    assert await there.remove("g", "b2", BOB)
    assert await there.remove("g", "a2", ANN)
    assert await here.close_group("g")


async def test_a_redis_that_starts_late_gets_all_connections(own_redis: services.Redis) -> None:
    own_redis.stop()
    presence = RedisPresence(url=own_redis.url)
    assert await presence.add("g", "a1", ANN)
    own_redis.launch()
    await back(presence)
    other = RedisPresence(url=own_redis.url)
    assert await names_in(other, "g") == ["ann"]
    for each in (presence, other):
        await each.close()


async def test_calls_that_redis_executed_late_are_corrected(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    """A frozen Redis executes old calls after newer ones that undo them."""
    here, there = pair
    await here.add("g", "a1", ANN)
    await here._store.add("g", "b1", BOB)
    await here._store.remove_all("g", {"a1": ANN})
    assert await names_in(there, "g") == ["bob"]
    for _ in range(2):
        await here.heartbeat()
    assert await names_in(there, "g") == ["ann"]


async def test_a_slow_process_whose_sweep_began_loses_no_user(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    """It was slow, and not dead; the sweep by the other process stops."""
    slow, here = pair
    await slow.add("g", "a1", ANN)
    await slow.add("g", "b1", BOB)
    await here.heartbeat()
    await expire(redis, slow)
    assert await here._store.expired_nodes() == [slow.node]
    entries = await here._store.entries(slow.node)
    assert await slow.heartbeat() == []
    await back(slow)
    # The sweeping process may have reported some departures.
    assert set(await slow.heartbeat()) == {Arrival("g", ANN), Arrival("g", BOB)}
    assert await slow.heartbeat() == []
    assert await here._store._remove_chunk(slow.node, entries, swept=slow.node) == []
    assert await names_in(here, "g") == ["ann", "bob"]
    assert await here.heartbeat() == []
    assert await redis.zrange("rooms:dead", 0, -1) == []


async def test_an_invalid_entry_does_not_stop_a_sweep(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    dead, here = pair
    await dead.add("g", "a1", ANN)
    await redis.sadd(f"rooms:node:{dead.node}", "nonsense", msgspec.json.encode(["g", "b1"]))
    await expire(redis, dead)
    assert await here.heartbeat() == [Departure("g", ANN)]
    assert await redis.exists(f"rooms:node:{dead.node}") == 0
