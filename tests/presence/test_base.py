"""The interface of presence, for each store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from rooms.presence import Departure, MemberPage, Presence
from rooms.presence.base import GroupClosed, GroupFull, NameInUse, page, sort_key
from rooms.presence.database import DatabasePresence
from rooms.presence.memory import MemoryPresence
from rooms.presence.redis import RedisPresence
from rooms.protocol.types import User

pytestmark = pytest.mark.database

ANN = User(name="Ann", id="1", guest=False)
BOB = User(name="bob", id="guest-2", guest=True)
EVE = User(name="Éve", id="guest-3", guest=True)


Make = Callable[[], Presence]


IN_DATABASE = pytest.param("database", marks=pytest.mark.django_db(transaction=True))


@pytest.fixture(params=["memory", "redis", IN_DATABASE])
def make(request: pytest.FixtureRequest) -> Make:
    """Creates the presence of any number of processes on one store, which is empty at first."""
    if request.param == "memory":
        return MemoryPresence
    if request.param == "redis":
        return partial(RedisPresence, url=request.getfixturevalue("redis_url"))
    return DatabasePresence


@pytest.fixture
async def presence(make: Make) -> AsyncIterator[Presence]:
    presence = make()
    yield presence
    await presence.close()


SHARED = ["redis", IN_DATABASE]
Pair = tuple[Presence, Presence]


@pytest.fixture
async def pair(make: Make) -> AsyncIterator[Pair]:
    """The presence of two processes."""
    both = make(), make()
    yield both
    for presence in both:
        await presence.close()


async def names(presence: Presence, group: str = "g", **options: Any) -> list[str]:
    return [user.name for user in (await presence.members(group, **options)).users]


async def test_a_group_without_users_is_empty(presence: Presence) -> None:
    assert await presence.members("g") == MemberPage(users=[], count=0, more=False)
    assert await presence.counts(["g", "h"]) == [0, 0]
    assert await presence.counts([]) == []
    assert await presence.find("g", ["Ann"]) == {}
    await presence.start_grace("g", "a1", ANN)
    assert not await presence.remove("g", "a1", ANN)
    assert await presence.remove_all("g", {"a1": ANN}) == []


async def test_the_first_connection_enters_and_the_last_one_leaves(presence: Presence) -> None:
    assert await presence.add("g", "a1", ANN)
    assert not await presence.add("g", "a2", ANN)
    assert not await presence.add("g", "a2", ANN)
    assert not await presence.remove("g", "a1", ANN)
    assert not await presence.remove("g", "a1", ANN)
    assert await names(presence) == ["Ann"]
    assert await presence.remove("g", "a2", ANN)
    assert not await presence.remove("g", "a2", ANN)
    assert await names(presence) == []
    assert await presence.add("g", "a1", ANN)


async def test_of_concurrent_connections_one_is_the_first_and_one_the_last(presence: Presence) -> None:
    connections = [f"a{number}" for number in range(20)]
    first = await asyncio.gather(*(presence.add("g", each, ANN) for each in connections))
    assert sum(first) == 1
    last = await asyncio.gather(*(presence.remove("g", each, ANN) for each in connections))
    assert sum(last) == 1
    assert await presence.counts(["g"]) == [0]


async def test_groups_are_independent(presence: Presence) -> None:
    await presence.add("g", "a1", ANN)
    assert await presence.add("h", "a1", ANN)
    await presence.add("h", "b1", BOB)
    assert await presence.counts(["g", "empty", "h"]) == [1, 0, 2]
    await presence.remove("h", "a1", ANN)
    assert (await names(presence, "g"), await names(presence, "h")) == (["Ann"], ["bob"])


async def test_users_with_similar_ids_are_distinct(presence: Presence) -> None:
    """Keys of several parts must not be ambiguous."""
    one, other = User(name="one", id="b:c", guest=True), User(name="other", id="c", guest=True)
    await presence.add("a", "x", one)
    await presence.add("a:b", "x", other)
    assert await presence.remove("a", "x", one)
    assert await names(presence, "a:b") == ["other"]


# Grace periods -----------------------------------------------------------------------------------


async def test_a_user_in_grace_counts(presence: Presence) -> None:
    await presence.add("g", "a1", ANN)
    await presence.start_grace("g", "a1", ANN)
    assert await names(presence) == ["Ann"]
    assert await presence.remove("g", "a1", ANN)


async def test_a_returning_user_replaces_connections_in_grace(presence: Presence) -> None:
    await presence.add("g", "a1", ANN)
    await presence.start_grace("g", "a1", ANN)
    assert not await presence.add("g", "a2", ANN)
    # The grace period of the first connection ends, and the user stays.
    assert not await presence.remove("g", "a1", ANN)
    assert await names(presence) == ["Ann"]
    assert await presence.remove("g", "a2", ANN)


async def test_a_replaced_connection_in_grace_does_not_keep_the_user(presence: Presence) -> None:
    await presence.add("g", "a1", ANN)
    await presence.add("g", "a2", ANN)
    await presence.start_grace("g", "a1", ANN)
    assert not await presence.remove("g", "a2", ANN)
    assert await names(presence) == ["Ann"]
    assert await presence.remove("g", "a1", ANN)


async def test_start_grace_twice_or_after_the_removal_changes_nothing(presence: Presence) -> None:
    await presence.add("g", "a1", ANN)
    await presence.start_grace("g", "a1", ANN)
    await presence.start_grace("g", "a1", ANN)
    assert await presence.remove("g", "a1", ANN)
    await presence.start_grace("g", "a1", ANN)
    assert await presence.counts(["g"]) == [0]
    assert await presence.add("g", "a1", ANN)


async def test_adding_the_same_connection_again_ends_its_grace(presence: Presence) -> None:
    await presence.add("g", "a1", ANN)
    await presence.start_grace("g", "a1", ANN)
    assert not await presence.add("g", "a1", ANN)
    assert not await presence.add("g", "a2", ANN)
    assert not await presence.remove("g", "a2", ANN)
    assert await names(presence) == ["Ann"]


# Limits and names --------------------------------------------------------------------------------


async def test_a_full_group_accepts_only_its_users(presence: Presence) -> None:
    await presence.add("g", "a1", ANN, limit=2)
    await presence.add("g", "b1", BOB, limit=2)
    with pytest.raises(GroupFull):
        await presence.add("g", "e1", EVE, limit=2)
    assert not await presence.add("g", "b2", BOB, limit=2)
    assert await presence.counts(["g"]) == [2]
    assert not await presence.remove("g", "e1", EVE)
    await presence.remove("g", "a1", ANN)
    assert await presence.add("g", "e1", EVE, limit=2)


async def test_concurrent_users_do_not_exceed_the_limit(presence: Presence) -> None:
    users = [User(name=f"u{number}", id=f"guest-{number}", guest=True) for number in range(20)]
    results = await asyncio.gather(
        *(presence.add("g", user.id, user, limit=3) for user in users), return_exceptions=True
    )
    assert sum(result is True for result in results) == 3
    assert sum(isinstance(result, GroupFull) for result in results) == 17
    assert await presence.counts(["g"]) == [3]


async def test_a_unique_name_belongs_to_one_user_in_any_case(presence: Presence) -> None:
    await presence.add("g", "a1", ANN)
    other = User(name="aNN", id="guest-9", guest=True)
    with pytest.raises(NameInUse):
        await presence.add("g", "x", other, unique=True)
    assert not await presence.add("g", "a2", ANN, unique=True)
    await presence.remove("g", "a1", ANN)
    await presence.remove("g", "a2", ANN)
    assert await presence.add("g", "x", other, unique=True)


async def test_a_user_in_grace_keeps_the_name(presence: Presence) -> None:
    await presence.add("g", "b1", BOB)
    await presence.start_grace("g", "b1", BOB)
    with pytest.raises(NameInUse):
        await presence.add("g", "x", User(name="BOB", id="guest-9", guest=True), unique=True)
    assert not await presence.add("g", "b2", BOB, unique=True)


async def test_two_users_may_have_one_name_that_is_not_unique(presence: Presence) -> None:
    double = User(name="ANN", id="guest-9", guest=True)
    await presence.add("g", "a1", ANN)
    await presence.add("g", "x", double)
    assert await presence.counts(["g"]) == [2]
    await presence.remove("g", "a1", ANN)
    assert await presence.find("g", ["ann"]) == {"ann": double}


# Queries -----------------------------------------------------------------------------------------


async def test_members_are_listed_in_pages_by_name(presence: Presence) -> None:
    for name in ("bob", "Ann", "carl", "Dora", "eve"):
        await presence.add("g", name, User(name=name, id=f"id {name}", guest=True))
    assert await names(presence) == ["Ann", "bob", "carl", "Dora", "eve"]
    assert await presence.members("g", limit=2) == MemberPage(
        users=(await presence.members("g")).users[:2], count=5, more=True
    )
    assert await names(presence, after="BOB", limit=2) == ["carl", "Dora"]
    assert await names(presence, after="bz") == ["carl", "Dora", "eve"]
    last = await presence.members("g", after="dora", limit=2)
    assert ([user.name for user in last.users], last.count, last.more) == (["eve"], 5, False)
    assert (await presence.members("g", limit=0)).more
    assert (await presence.members("g", limit=5)).more is False


async def test_users_are_found_by_name(presence: Presence) -> None:
    for user in (ANN, BOB, EVE):
        await presence.add("g", user.id, user)
    assert await presence.find("g", ["ann", "BOB", "e\u0301VE", "unknown"]) == {
        "ann": ANN,
        "BOB": BOB,
        "e\u0301VE": EVE,
    }
    assert await presence.find("g", ["unknown"]) == {}
    assert await presence.find("g", []) == {}
    assert await presence.find("h", ["ann"]) == {}
    # A part of a name is not the name.
    assert await presence.find("g", ["an", "anna"]) == {}


async def test_remove_all_removes_many_connections(presence: Presence) -> None:
    users = [User(name=f"u{number}", id=f"one-{number}", guest=True) for number in range(1000)]
    await asyncio.gather(*(presence.add("g", f"c{user.id}", user) for user in users[:50]))
    await presence.add("g", "a1", ANN)
    await presence.add("g", "a2", ANN)
    await presence.add("g", "b1", BOB)
    await presence.start_grace("g", "b1", BOB)
    await presence.add("h", "b1", BOB)
    going = {f"c{user.id}": user for user in users} | {"a1": ANN, "b1": BOB}
    out = await presence.remove_all("g", going)
    assert sorted(user.id for user in out) == sorted(user.id for user in [*users[:50], BOB])
    assert await names(presence) == ["Ann"]
    assert await names(presence, "h") == ["bob"]
    assert await presence.remove_all("g", going) == []
    assert await presence.remove_all("g", {}) == []
    assert await presence.remove_all("g", {"a2": ANN}) == [ANN]


async def test_remove_ignores_the_connection_of_another_user(presence: Presence) -> None:
    await presence.add("g", "x", ANN)
    await presence.add("g", "x", BOB)
    assert await presence.remove_all("g", {"x": ANN}) == [ANN]
    assert await names(presence) == ["bob"]


# Closing -----------------------------------------------------------------------------------------


async def test_a_group_that_is_not_empty_is_not_closed(presence: Presence) -> None:
    await presence.add("g", "a1", ANN)
    assert not await presence.close_group("g")
    assert not await presence.add("g", "a2", ANN)
    assert await presence.add("g", "b1", BOB)
    assert await names(presence) == ["Ann", "bob"]
    # A user in grace counts, too.
    await presence.remove("g", "b1", BOB)
    await presence.remove("g", "a1", ANN)
    await presence.start_grace("g", "a2", ANN)
    assert not await presence.close_group("g")
    assert not await presence.add("g", "a3", ANN)


async def test_an_empty_group_can_be_closed_again(presence: Presence) -> None:
    assert await presence.close_group("g")
    assert await presence.close_group("g")
    await presence.add("h", "a1", ANN)
    await presence.remove("h", "a1", ANN)
    assert await presence.close_group("h")
    assert await presence.counts(["g", "h"]) == [0, 0]
    assert await presence.add("another", "a1", ANN)


@pytest.mark.parametrize("make", SHARED, indirect=True)
async def test_a_closed_group_accepts_no_user_of_any_process(pair: Pair) -> None:
    here, _ = pair
    assert await here.close_group("g")
    for presence in pair:
        with pytest.raises(GroupClosed):
            await presence.add("g", "a1", ANN)
        with pytest.raises(GroupClosed):
            await presence.add("g", "b1", BOB, limit=0, unique=True)
        assert await presence.counts(["g"]) == [0]
        assert not await presence.remove("g", "a1", ANN)


@pytest.mark.parametrize("make", SHARED, indirect=True)
async def test_either_a_close_or_a_concurrent_add_succeeds(pair: Pair) -> None:
    here, there = pair
    for presence in pair:
        await presence.heartbeat()
    for number in range(50):
        group = f"g{number}"
        work = [there.add(group, "a1", ANN), here.close_group(group)]
        if number % 2:
            work.reverse()
        results = await asyncio.gather(*work, return_exceptions=True)
        entered, closed = reversed(results) if number % 2 else results
        assert (entered is True) is not closed
        assert entered is True or isinstance(entered, GroupClosed)
        assert await here.counts([group]) == [1 if entered is True else 0]


# Load --------------------------------------------------------------------------------------------


async def test_every_user_of_a_join_burst_is_added(presence: Presence) -> None:
    """As when all users return at once after a restart."""
    users = [User(name=f"u{number}", id=f"guest-{number}", guest=True) for number in range(300)]
    first = await asyncio.gather(*(presence.add("g", user.id, user, unique=True) for user in users))
    assert first == [True] * 300
    assert await presence.counts(["g"]) == [300]
    found = await asyncio.gather(*(presence.find("g", [user.name]) for user in users))
    assert [list(each.values()) for each in found] == [[user] for user in users]
    last = await asyncio.gather(*(presence.remove("g", user.id, user) for user in users))
    assert last == [True] * 300


async def test_a_heartbeat_finds_nothing_while_all_processes_live(presence: Presence) -> None:
    await presence.add("g", "a1", ANN)
    for _ in range(2):
        assert await presence.heartbeat() == []
    assert await names(presence) == ["Ann"]


def test_the_order_of_members_is_stable() -> None:
    double = User(name="ANN", id="0", guest=True)
    assert sorted([BOB, ANN, double], key=sort_key) == [double, ANN, BOB]


def test_a_page_without_a_limit() -> None:
    assert page([ANN, BOB], None, None) == MemberPage(users=[ANN, BOB], count=2, more=False)
    assert page([ANN, BOB], "ann", None) == MemberPage(users=[BOB], count=2, more=False)


def test_a_departure_has_its_group_and_user() -> None:
    assert Departure("g", ANN) == Departure(group="g", user=ANN)
