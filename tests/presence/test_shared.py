"""What presence promises across processes, held against every store that they can share. A process is
an instance; it is dead when its lease is over, since nothing renews it. Processes are patient only where
that is what is tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import F
from redis.asyncio import Redis

from rooms.models import PresenceNode
from rooms.presence import Arrival, Departure, Presence, base, lease
from rooms.presence.base import BEAT_SECONDS, LEASE_SECONDS
from rooms.presence.database import DatabasePresence
from rooms.presence.lease import PATIENCE_SECONDS
from rooms.presence.redis import RedisPresence
from rooms.protocol.errors import Unavailable
from rooms.protocol.types import User

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("impatient")]

ANN = User(name="ann", id="1", guest=False)
BOB = User(name="bob", id="guest-2", guest=True)
EVE = User(name="eve", id="guest-3", guest=True)
PEOPLE = [User(name=f"user {number}", id=f"user-{number}", guest=True) for number in range(20)]

# Nothing takes so long but a test that waits for what never comes.
PATIENCE = 30

Die = Callable[[Presence], Awaitable[None]]
Processes = list[Presence]


@pytest.fixture(
    params=["redis", pytest.param("database", marks=pytest.mark.django_db(transaction=True))],
)
def kind(request: pytest.FixtureRequest) -> str:
    """The store that is tried."""
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
    """Has the lease of a process run out, and the time of whoever is sweeping it."""
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
    """The processes' own clock, and that of the store, whose leases are made as much older."""

    kind: str
    redis: Redis
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    async def go_on(self, seconds: float) -> None:
        self.now += seconds
        await self.set_on(seconds)

    async def set_on(self, seconds: float) -> None:
        """The store's clock alone."""
        if self.kind == "redis":
            for key in ("rooms:nodes", "rooms:dead"):
                for node in await self.redis.zrange(key, 0, -1):
                    await self.redis.zincrby(key, -seconds, node)
        else:
            await PresenceNode.objects.aupdate(lease=F("lease") - timedelta(seconds=seconds))


@pytest.fixture
async def clocks(kind: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clocks]:
    """Clocks that a test sets on; processes are patient by them."""
    redis = Redis.from_url(redis_url)
    clocks = Clocks(kind, redis)
    monkeypatch.setattr(lease, "time", clocks)
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", PATIENCE_SECONDS)
    yield clocks
    await redis.aclose()


async def told(*processes: Presence) -> list[tuple[str, str]]:
    """Whom the next beats of these processes tell, in whatever order."""
    found = await asyncio.gather(*(presence.heartbeat() for presence in processes))
    return sorted((each.group, each.user.name) for departures in found for each in departures)


async def names_in(presence: Presence, group: str) -> list[str]:
    return [user.name for user in (await presence.members(group)).users]


# Users of several processes ------------------------------------------------------------------------


async def test_processes_share_it(processes: Processes) -> None:
    here, there, *_ = processes
    assert await here.add("g", "a1", ANN)
    assert not await there.add("g", "a2", ANN)
    assert await names_in(there, "g") == ["ann"]
    assert await there.find("g", ["ANN"]) == {"ANN": ANN}
    assert not await here.remove("g", "a1", ANN)
    assert await there.remove("g", "a2", ANN)
    assert await names_in(here, "g") == []


async def test_coming_back_to_another_process(processes: Processes) -> None:
    here, there, *_ = processes
    await here.add("g", "a1", ANN)
    await here.start_grace("g", "a1", ANN)
    assert not await there.add("g", "a2", ANN)
    assert not await here.remove("g", "a1", ANN)
    assert await there.remove("g", "a2", ANN)


async def test_of_many_processes_at_once_one_is_first_and_one_last(processes: Processes) -> None:
    places = [(presence, f"{number} {presence.node}") for presence in processes for number in range(5)]
    first = await asyncio.gather(*(presence.add("g", place, ANN) for presence, place in places))
    assert sum(first) == 1
    last = await asyncio.gather(*(presence.remove("g", place, ANN) for presence, place in places))
    assert sum(last) == 1
    assert await processes[0].counts(["g"]) == [0]


# Processes that die --------------------------------------------------------------------------------


async def test_those_of_a_process_that_died_are_told_once(processes: Processes, die: Die) -> None:
    dead, here, *others = processes
    for group, connection, user in (("g", "a1", ANN), ("g", "a2", ANN), ("h", "a1", ANN), ("g", "b1", BOB)):
        await dead.add(group, connection, user)
    for user in PEOPLE:
        await dead.add("many", user.id, user)
    await here.add("h", "a3", ANN)
    assert await told(here, *others) == []
    await die(dead)
    gone = [("g", "ann"), ("g", "bob"), *(("many", user.name) for user in PEOPLE)]
    assert await told(here, *others) == sorted(gone)
    assert await told(here, *others) == []
    assert await here.counts(["g", "h", "many"]) == [0, 1, 0]
    assert await here.close_group("g")


async def test_those_who_faded_in_a_process_that_died_are_out_too(processes: Processes, die: Die) -> None:
    dead, here, *_ = processes
    await dead.add("g", "a1", ANN)
    await dead.start_grace("g", "a1", ANN)
    await die(dead)
    assert await here.heartbeat() == [Departure("g", ANN)]


async def test_a_user_who_came_back_elsewhere_is_not_told_as_gone(processes: Processes, die: Die) -> None:
    dead, here, *_ = processes
    await here.heartbeat()
    await dead.add("g", "a1", ANN)
    await die(dead)
    assert not await here.add("g", "a2", ANN)
    assert await told(here) == []
    assert await names_in(here, "g") == ["ann"]


async def test_a_process_that_was_taken_for_dead_says_everything_again(
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
    assert await told(here) == [("g", "ann"), ("g", "bob")]
    # The others have been told that they are gone.
    found: list[Departure | Arrival] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < 2 or await names_in(here, "g") != ["ann", "bob"]:
            # In Redis that goes on in the background.
            await asyncio.sleep(0)
            found += await slow.heartbeat()
    assert set(found) == {Arrival("g", ANN), Arrival("g", BOB)}
    assert await here.counts(["h"]) == [0]
    assert await told(here, slow) == []
    assert await slow.remove("g", "a1", ANN)


async def test_a_lease_that_is_renewed_in_time_is_nobodys_to_take(processes: Processes, die: Die) -> None:
    slow, here, *_ = processes
    await slow.add("g", "a1", ANN)
    await die(slow)
    await slow.heartbeat()
    assert await told(here) == []
    assert await names_in(here, "g") == ["ann"]


# Clocks, and stores that were away ------------------------------------------------------------------


@pytest.mark.parametrize("jump", [0, -3600])
async def test_those_of_a_process_that_died_are_gone_within_a_minute(
    processes: Processes, clocks: Clocks, jump: float
) -> None:
    """Also when the store's clock is set back: a lease would last for an hour more."""
    dead, here, *_ = processes
    await here.add("g", "b1", BOB)
    await clocks.go_on(PATIENCE_SECONDS)
    await dead.add("g", "a1", ANN)
    await clocks.set_on(jump)
    found: list[Departure | Arrival] = []
    for _ in range(60 // BEAT_SECONDS - 1):
        await clocks.go_on(BEAT_SECONDS)
        found += await here.heartbeat()
    assert found == [Departure("g", ANN)]
    assert await names_in(here, "g") == ["bob"]


async def test_a_process_that_begins_after_an_outage_leaves_the_others_their_time(
    processes: Processes, clocks: Clocks
) -> None:
    first, second, dead, new = processes
    for presence, user in ((first, ANN), (second, BOB), (dead, EVE)):
        await presence.add("g", user.id, user)
    await clocks.go_on(LEASE_SECONDS + BEAT_SECONDS)
    for presence in (new, first, second):
        assert await told(presence) == []
    await clocks.go_on(PATIENCE_SECONDS)
    assert await told(new) == [("g", "eve")]
    assert await names_in(new, "g") == ["ann", "bob"]


@pytest.mark.parametrize("jump", [-3600, LEASE_SECONDS - BEAT_SECONDS, 3600])
async def test_a_jump_of_the_stores_clock_is_nobodys_death(
    processes: Processes, clocks: Clocks, jump: float
) -> None:
    here, there, dead, _ = processes
    for presence, user in ((here, ANN), (there, BOB), (dead, EVE)):
        await presence.add("g", user.id, user)
    for _ in range(4):
        await clocks.go_on(BEAT_SECONDS)
        assert await told(here, there) == []
    await clocks.set_on(jump)
    await clocks.go_on(BEAT_SECONDS)
    # The other one has not had its beat yet.
    assert await told(here) == []
    assert await told(there) == []
    for _ in range(LEASE_SECONDS // BEAT_SECONDS - 1):
        await clocks.go_on(BEAT_SECONDS)
        for presence in (here, there):
            assert {each.user for each in await presence.heartbeat()} <= {EVE}
    await clocks.go_on(BEAT_SECONDS)
    await told(here, there)
    assert await names_in(here, "g") == ["ann", "bob"]


# Processes that are known to be dead ---------------------------------------------------------------


async def test_who_is_buried_is_told_once_though_all_say_so(processes: Processes) -> None:
    dead, *others = processes
    await dead.add("g", "a1", ANN)
    await dead.add("g", "b1", BOB)
    await others[0].add("g", "e1", EVE)
    assert await told(*others) == []
    for presence in others:
        await presence.expire_node(dead.id, 0)
    # Meanwhile Bob has come back.
    assert not await others[1].add("g", "b2", BOB)
    assert await told(*others) == [("g", "ann")]
    assert await told(*others) == []
    assert await names_in(others[0], "g") == ["bob", "eve"]


async def test_who_is_buried_counts_for_the_grace_period(processes: Processes) -> None:
    dead, here, *_ = processes
    await dead.add("g", "a1", ANN)
    await here.expire_node(dead.id, 3600)
    assert await told(here) == []
    assert await names_in(here, "g") == ["ann"]
    # A lease that ends sooner is not made longer, and a later word of a sooner end holds.
    await here.expire_node(dead.id, 0)
    await here.expire_node(dead.id, 3600)
    assert await told(here) == [("g", "ann")]


async def test_one_who_buries_itself_is_seen_to_by_the_others(processes: Processes) -> None:
    ending, here, *_ = processes
    await ending.add("g", "a1", ANN)
    await ending.start_grace("g", "a1", ANN)
    await ending.expire_node(ending.node, 0)
    assert await told(here) == [("g", "ann")]


async def test_one_who_is_alive_after_all_takes_it_back(processes: Processes) -> None:
    slow, here, *_ = processes
    await slow.add("g", "a1", ANN)
    await here.expire_node(slow.node, 0)
    await slow.heartbeat()
    assert await told(here) == []
    assert await names_in(here, "g") == ["ann"]


async def test_burying_one_whom_nobody_knows_changes_nothing(processes: Processes) -> None:
    here, *_ = processes
    await here.expire_node("nobody", 0)
    assert await told(here) == []


# Turns ---------------------------------------------------------------------------------------------


async def test_it_is_one_processs_turn_at_a_time(processes: Processes) -> None:
    inside: list[str] = []
    most = 0

    async def come(presence: Presence) -> None:
        nonlocal most
        async with presence.turn("g", ANN):
            inside.append(presence.node)
            most = max(most, len(inside))
            await asyncio.gather(*(presence.counts(["g"]) for _ in range(3)))
            inside.remove(presence.node)

    await asyncio.gather(*(come(presence) for presence in processes for _ in range(2)))
    assert most == 1


async def test_turns_of_others_and_elsewhere_are_not_waited_for(processes: Processes) -> None:
    here, there, *_ = processes
    async with asyncio.timeout(PATIENCE), here.turn("g", ANN), there.turn("g", BOB), there.turn("h", ANN):
        pass


async def test_a_turn_lasts_as_long_as_somebody_takes_it(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, *_ = processes
    monkeypatch.setattr(base, "RENEW_TURN_SECONDS", 0)
    take, tokens, renewed = here.take_turn, set(), asyncio.Event()

    async def take_turn(group: str, user: User, token: str) -> bool:
        mine = await take(group, user, token)
        if mine and token in tokens:
            renewed.set()
        tokens.add(token)
        return mine

    here.take_turn = take_turn  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE), here.turn("g", ANN):
        await renewed.wait()
        assert not await there.take_turn("g", ANN, "another")
    assert await there.take_turn("g", ANN, "another")


async def test_a_turn_of_a_process_that_died_ends_by_itself(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, here, *_ = processes
    monkeypatch.setattr(base, "WAIT_SECONDS", 0)
    assert await dead.take_turn("g", ANN, "token")
    with pytest.raises(Unavailable):
        async with here.turn("g", ANN):
            pass
    # Whoever was late does not end another's.
    await here.end_turn("g", ANN, "another")
    assert not await here.take_turn("g", ANN, "another")
    # Whose turn it is may have it for longer.
    assert await dead.take_turn("g", ANN, "token")
    assert not await here.take_turn("g", ANN, "another")
    await dead.end_turn("g", ANN, "token")
    assert await here.take_turn("g", ANN, "another")
