"""Presence across processes, for each shared store.

A process is an instance; it is dead when its lease has expired, because nothing renews it. The delay before
sweeps is 0, except in the tests of that delay.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import F
from redis.asyncio import Redis

from rooms.models import PresenceNode
from rooms.presence import Arrival, Departure, Presence, lease
from rooms.presence.base import HEARTBEAT_SECONDS, LEASE_TTL
from rooms.presence.database import DatabasePresence
from rooms.presence.lease import SWEEP_DELAY
from rooms.presence.redis import RedisPresence
from rooms.protocol.types import User

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("sweeps_at_once")]

ANN = User(name="ann", id="1", guest=False)
BOB = User(name="bob", id="guest-2", guest=True)
EVE = User(name="eve", id="guest-3", guest=True)
PEOPLE = [User(name=f"user {number}", id=f"user-{number}", guest=True) for number in range(20)]

# Only a test that waits for what never comes takes this long.
PATIENCE = 60

Die = Callable[[Presence], Awaitable[None]]
Processes = list[Presence]


@pytest.fixture(
    params=["redis", pytest.param("database", marks=pytest.mark.django_db(transaction=True))],
)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of store."""
    return str(request.param)


@pytest.fixture
async def processes(kind: str, redis_url: str) -> AsyncIterator[Processes]:
    """The presence of four processes that share a store."""
    every: Processes = [
        RedisPresence(url=redis_url) if kind == "redis" else DatabasePresence() for _ in range(4)
    ]
    yield every
    for presence in every:
        await presence.close()


@pytest.fixture
async def die(kind: str, redis_url: str) -> AsyncIterator[Die]:
    """Lets the lease of a process expire, and the time limit of its sweep."""
    redis = Redis.from_url(redis_url)

    async def die(presence: Presence) -> None:
        if kind == "redis":
            for key in ("rooms:nodes", "rooms:dead"):
                await redis.zadd(key, {presence.node: 1}, xx=True)
        else:
            past = datetime(2000, 1, 1, tzinfo=UTC)
            await PresenceNode.objects.filter(pk=presence.node).aupdate(lease=past)

    yield die
    await redis.aclose()


@dataclass
class Clocks:
    """The clock of the processes, and that of the store, which is moved by making leases older."""

    kind: str
    redis: Redis
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        self.now += seconds
        await self.advance_store(seconds)

    async def advance_store(self, seconds: float) -> None:
        """Move only the clock of the store."""
        if self.kind == "redis":
            for key in ("rooms:nodes", "rooms:dead"):
                for node in await self.redis.zrange(key, 0, -1):
                    await self.redis.zincrby(key, -seconds, node)
        else:
            await PresenceNode.objects.aupdate(lease=F("lease") - timedelta(seconds=seconds))


@pytest.fixture
async def clocks(kind: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clocks]:
    """Clocks that the test moves, with the real delay before sweeps."""
    redis = Redis.from_url(redis_url)
    clocks = Clocks(kind, redis)
    monkeypatch.setattr(lease, "time", clocks)
    monkeypatch.setattr(lease, "SWEEP_DELAY", SWEEP_DELAY)
    yield clocks
    await redis.aclose()


async def departures(*processes: Presence) -> list[tuple[str, str]]:
    """Return the departures of the next heartbeats of these processes, sorted."""
    found = await asyncio.gather(*(presence.heartbeat() for presence in processes))
    return sorted((each.group, each.user.name) for departures in found for each in departures)


async def names_in(presence: Presence, group: str) -> list[str]:
    return [user.name for user in (await presence.members(group)).users]


# Users of several processes ------------------------------------------------------------------------


async def test_processes_share_a_store(processes: Processes) -> None:
    here, there, *_ = processes
    assert await here.add("g", "a1", ANN)
    assert not await there.add("g", "a2", ANN)
    assert await names_in(there, "g") == ["ann"]
    assert await there.find("g", ["ANN"]) == {"ANN": ANN}
    assert not await here.remove("g", "a1", ANN)
    assert await there.remove("g", "a2", ANN)
    assert await names_in(here, "g") == []


async def test_a_user_returns_through_another_process(processes: Processes) -> None:
    here, there, *_ = processes
    await here.add("g", "a1", ANN)
    await here.start_grace("g", "a1", ANN)
    assert not await there.add("g", "a2", ANN)
    assert not await here.remove("g", "a1", ANN)
    assert await there.remove("g", "a2", ANN)


async def test_of_concurrent_processes_one_is_first_and_one_last(processes: Processes) -> None:
    connections = [(presence, f"{number} {presence.node}") for presence in processes for number in range(5)]
    first = await asyncio.gather(
        *(presence.add("g", connection, ANN) for presence, connection in connections)
    )
    assert sum(first) == 1
    last = await asyncio.gather(
        *(presence.remove("g", connection, ANN) for presence, connection in connections)
    )
    assert sum(last) == 1
    assert await processes[0].counts(["g"]) == [0]


# Processes that die --------------------------------------------------------------------------------


async def test_the_users_of_a_dead_process_depart_once(processes: Processes, die: Die) -> None:
    dead, here, *others = processes
    for group, connection, user in (("g", "a1", ANN), ("g", "a2", ANN), ("h", "a1", ANN), ("g", "b1", BOB)):
        await dead.add(group, connection, user)
    for user in PEOPLE:
        await dead.add("many", user.id, user)
    await here.add("h", "a3", ANN)
    assert await departures(here, *others) == []
    await die(dead)
    gone = [("g", "ann"), ("g", "bob"), *(("many", user.name) for user in PEOPLE)]
    assert await departures(here, *others) == sorted(gone)
    assert await departures(here, *others) == []
    assert await here.counts(["g", "h", "many"]) == [0, 1, 0]
    assert await here.close_group("g")


async def test_users_in_grace_of_a_dead_process_depart_too(processes: Processes, die: Die) -> None:
    dead, here, *_ = processes
    await dead.add("g", "a1", ANN)
    await dead.start_grace("g", "a1", ANN)
    await die(dead)
    assert await here.heartbeat() == [Departure("g", ANN)]


async def test_a_user_that_returned_through_another_process_does_not_depart(
    processes: Processes, die: Die
) -> None:
    dead, here, *_ = processes
    await here.heartbeat()
    await dead.add("g", "a1", ANN)
    await die(dead)
    assert not await here.add("g", "a2", ANN)
    assert await departures(here) == []
    assert await names_in(here, "g") == ["ann"]


async def test_a_process_whose_lease_expired_registers_its_users_again(
    processes: Processes, die: Die
) -> None:
    slow, here, *_ = processes
    await slow.add("g", "a1", ANN)
    await slow.add("g", "b1", BOB)
    await slow.add("h", "b1", BOB)
    await slow.remove("h", "b1", BOB)
    await here.heartbeat()
    await die(slow)
    await slow.add("g", "b2", BOB)
    assert await departures(here) == [("g", "ann"), ("g", "bob")]
    # The other processes have reported their departure.
    found: list[Departure | Arrival] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < 2 or await names_in(here, "g") != ["ann", "bob"]:
            # With Redis, the resync runs in the background.
            await asyncio.sleep(0)
            found += await slow.heartbeat()
    assert set(found) == {Arrival("g", ANN), Arrival("g", BOB)}
    assert await here.counts(["h"]) == [0]
    assert await departures(here, slow) == []
    assert await slow.remove("g", "a1", ANN)


async def test_a_process_that_renews_its_lease_in_time_is_not_swept(processes: Processes, die: Die) -> None:
    slow, here, *_ = processes
    await slow.add("g", "a1", ANN)
    await die(slow)
    await slow.heartbeat()
    assert await departures(here) == []
    assert await names_in(here, "g") == ["ann"]


# Clocks and outages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [0, -3600])
async def test_the_users_of_a_dead_process_depart_within_a_minute(
    processes: Processes, clocks: Clocks, jump: float
) -> None:
    """Also when the clock of the store is set back by an hour."""
    dead, here, *_ = processes
    await here.add("g", "b1", BOB)
    await clocks.advance(SWEEP_DELAY)
    await dead.add("g", "a1", ANN)
    await clocks.advance_store(jump)
    found: list[Departure | Arrival] = []
    for _ in range(60 // HEARTBEAT_SECONDS - 1):
        await clocks.advance(HEARTBEAT_SECONDS)
        found += await here.heartbeat()
    assert found == [Departure("g", ANN)]
    assert await names_in(here, "g") == ["bob"]


async def test_a_process_that_starts_after_an_outage_waits_before_it_sweeps(
    processes: Processes, clocks: Clocks
) -> None:
    first, second, dead, new = processes
    for presence, user in ((first, ANN), (second, BOB), (dead, EVE)):
        await presence.add("g", user.id, user)
    await clocks.advance(LEASE_TTL + HEARTBEAT_SECONDS)
    for presence in (new, first, second):
        assert await departures(presence) == []
    await clocks.advance(SWEEP_DELAY)
    assert await departures(new) == [("g", "eve")]
    assert await names_in(new, "g") == ["ann", "bob"]


@pytest.mark.parametrize("jump", [-3600, LEASE_TTL - HEARTBEAT_SECONDS, 3600])
async def test_a_jump_of_the_stores_clock_expires_no_process(
    processes: Processes, clocks: Clocks, jump: float
) -> None:
    here, there, dead, _ = processes
    for presence, user in ((here, ANN), (there, BOB), (dead, EVE)):
        await presence.add("g", user.id, user)
    for _ in range(4):
        await clocks.advance(HEARTBEAT_SECONDS)
        assert await departures(here, there) == []
    await clocks.advance_store(jump)
    await clocks.advance(HEARTBEAT_SECONDS)
    # The other process has had no heartbeat since.
    assert await departures(here) == []
    assert await departures(there) == []
    for _ in range(LEASE_TTL // HEARTBEAT_SECONDS - 1):
        await clocks.advance(HEARTBEAT_SECONDS)
        for presence in (here, there):
            assert {each.user for each in await presence.heartbeat()} <= {EVE}
    await clocks.advance(HEARTBEAT_SECONDS)
    await departures(here, there)
    assert await names_in(here, "g") == ["ann", "bob"]


# Processes that are known to be gone ---------------------------------------------------------------


async def test_the_users_of_an_expired_node_depart_once_though_all_processes_expire_it(
    processes: Processes,
) -> None:
    dead, *others = processes
    await dead.add("g", "a1", ANN)
    await dead.add("g", "b1", BOB)
    await others[0].add("g", "e1", EVE)
    assert await departures(*others) == []
    for presence in others:
        await presence.expire_node(dead.node, 0)
    # Meanwhile Bob has returned.
    assert not await others[1].add("g", "b2", BOB)
    assert await departures(*others) == [("g", "ann")]
    assert await departures(*others) == []
    assert await names_in(others[0], "g") == ["bob", "eve"]


async def test_the_users_of_an_expired_node_count_for_the_given_time(processes: Processes) -> None:
    dead, here, *_ = processes
    await dead.add("g", "a1", ANN)
    await here.expire_node(dead.node, 3600)
    assert await departures(here) == []
    assert await names_in(here, "g") == ["ann"]
    # A shorter lease is not extended, and a later call may shorten it.
    await here.expire_node(dead.node, 0)
    await here.expire_node(dead.node, 3600)
    assert await departures(here) == [("g", "ann")]


async def test_a_node_that_expires_itself_is_swept_by_the_others(processes: Processes) -> None:
    ending, here, *_ = processes
    await ending.add("g", "a1", ANN)
    await ending.start_grace("g", "a1", ANN)
    await ending.expire_node(ending.node, 0)
    assert await departures(here) == [("g", "ann")]


async def test_an_expired_node_that_is_alive_renews_its_lease(processes: Processes) -> None:
    slow, here, *_ = processes
    await slow.add("g", "a1", ANN)
    await here.expire_node(slow.node, 0)
    await slow.heartbeat()
    assert await departures(here) == []
    assert await names_in(here, "g") == ["ann"]


async def test_expiring_an_unknown_node_changes_nothing(processes: Processes) -> None:
    here, *_ = processes
    await here.expire_node("unknown", 0)
    assert await departures(here) == []
