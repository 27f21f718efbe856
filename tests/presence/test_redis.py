"""Presence in Redis: several processes, leases, a Redis that forgets or is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from rooms.errors import Unavailable
from rooms.events import User
from rooms.presence import Departure
from rooms.presence.redis import RedisPresence

ANN = User(name="ann", id="1", guest=False)
BOB = User(name="bob", id="guest-2", guest=True)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(redis_url, decode_responses=True)
    yield redis
    await redis.aclose()


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[tuple[RedisPresence, RedisPresence]]:
    """Those of two processes."""
    both = RedisPresence(url=redis_url), RedisPresence(url=redis_url)
    yield both
    for presence in both:
        await presence.close()


async def die(redis: Redis, presence: RedisPresence) -> None:
    """The process's lease has run out: nothing of it runs any more."""
    await redis.zadd("rooms:nodes", {presence._node: 1})


async def test_processes_share_it(pair: tuple[RedisPresence, RedisPresence]) -> None:
    here, there = pair
    assert await here.add("g", "a1", ANN)
    assert not await there.add("g", "a2", ANN)
    assert (await there.members("g")).users == [ANN]
    assert await there.find("g", ["ANN"]) == {"ANN": ANN}
    assert not await here.remove("g", "a1", ANN)
    assert await there.remove("g", "a2", ANN)


async def test_coming_back_to_another_process(pair: tuple[RedisPresence, RedisPresence]) -> None:
    here, there = pair
    await here.add("g", "a1", ANN)
    await here.fade("g", "a1", ANN)
    assert not await there.add("g", "a2", ANN)
    assert not await here.remove("g", "a1", ANN)
    assert await there.remove("g", "a2", ANN)


async def test_those_of_a_process_that_died_are_told_once(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence], redis_url: str
) -> None:
    dead, here = pair
    await dead.add("g", "a1", ANN)
    await dead.add("g", "a2", ANN)
    await dead.add("h", "a1", ANN)
    await dead.add("g", "b1", BOB)
    await here.add("h", "a3", ANN)
    await here.beat()
    assert (await here.members("g")).count == 2
    await die(redis, dead)
    found = await here.beat()
    assert sorted((each.group, each.user.name) for each in found) == [("g", "ann"), ("g", "bob")]
    assert await here.beat() == []
    assert (await here.counts(["g", "h"])) == [0, 1]
    other = RedisPresence(url=redis_url)
    assert await other.beat() == []
    await other.close()


async def test_those_who_faded_in_a_process_that_died_are_out_too(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    dead, here = pair
    await dead.add("g", "a1", ANN)
    await dead.fade("g", "a1", ANN)
    await die(redis, dead)
    assert await here.beat() == [Departure("g", ANN)]


async def test_a_user_who_came_back_elsewhere_is_not_told_as_gone(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    dead, here = pair
    await here.beat()
    await dead.add("g", "a1", ANN)
    await die(redis, dead)
    assert not await here.add("g", "a2", ANN)
    assert await here.beat() == []
    assert (await here.members("g")).users == [ANN]


async def test_a_process_that_begins_tells_of_those_it_finds_with_its_first_beat(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    dead, here = pair
    await dead.add("g", "a1", ANN)
    await die(redis, dead)
    await here.add("g", "b1", BOB)
    assert await here.beat() == [Departure("g", ANN)]
    assert await here.beat() == []


async def test_a_process_that_was_taken_for_dead_says_everything_again(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    slow, here = pair
    await slow.add("g", "a1", ANN)
    await here.beat()
    await die(redis, slow)
    assert await here.beat() == [Departure("g", ANN)]
    await slow.beat()
    assert (await here.members("g")).users == [ANN]
    assert await slow.remove("g", "a1", ANN)


async def test_a_redis_that_lost_its_data_is_told_again(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    here, there = pair
    await here.add("g", "a1", ANN)
    await here.add("g", "b1", BOB)
    await here.remove("g", "b1", BOB)
    await redis.flushall()
    assert await there.counts(["g"]) == [0]
    await here.beat()
    assert (await there.members("g")).users == [ANN]


async def test_what_was_cleared_is_not_said_again(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    here, _ = pair
    await here.add("g", "a1", ANN)
    await here.clear("g")
    await redis.flushall()
    await here.beat()
    assert await here.counts(["g"]) == [0]


async def test_nothing_is_left_when_everybody_is_out(
    redis: Redis, pair: tuple[RedisPresence, RedisPresence]
) -> None:
    here, there = pair
    for presence, connection, user in ((here, "a1", ANN), (there, "a2", ANN), (there, "b1", BOB)):
        await presence.add("g", connection, user, unique=user.guest)
        await presence.fade("g", connection, user)
    await here.remove("g", "a1", ANN)
    await there.remove("g", "a2", ANN)
    await there.remove("g", "b1", BOB)
    assert await redis.keys("*") == ["rooms:nodes"]


async def test_sites_that_share_a_redis_have_their_own_prefixes(
    pair: tuple[RedisPresence, RedisPresence], redis_url: str
) -> None:
    here, _ = pair
    other = RedisPresence(url=redis_url, prefix="other")
    await here.add("g", "a1", ANN)
    assert await other.add("g", "a1", ANN)
    await other.close()


async def test_a_redis_that_is_not_there_is_unavailable() -> None:
    presence = RedisPresence(url="redis://127.0.0.1:1/0")
    for asking in (
        presence.add("g", "a1", ANN),
        presence.fade("g", "a1", ANN),
        presence.remove("g", "a1", ANN),
        presence.members("g"),
        presence.counts(["g"]),
        presence.find("g", ["ann"]),
        presence.clear("g"),
        presence.beat(),
    ):
        with pytest.raises(Unavailable) as raised:
            await asking
        assert raised.value.retry
        assert "127.0.0.1" not in raised.value.message
    await presence.close()
