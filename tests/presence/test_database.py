"""Presence in the database, beyond the interface that all stores share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from random import Random
from threading import Event, Thread
from types import ModuleType
from typing import Any

import pytest
from django.db import Error, OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from rooms.concurrency import timeouts
from rooms.models import PresenceGroup, PresenceNode, PresentConnection, PresentUser
from rooms.presence import Arrival, Departure, database, expiry, operations, queries
from rooms.presence.base import GroupClosed, GroupFull, NameInUse, Presence
from rooms.presence.database import TIDY_EVERY, DatabasePresence
from rooms.presence.memory import MemoryPresence
from rooms.protocol.errors import Unavailable
from rooms.protocol.types import User

pytestmark = [
    pytest.mark.database,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sweeps_at_once"),
]

ANN = User(name="ann", id="1", guest=False)
BOB = User(name="bob", id="guest-2", guest=True)
EVE = User(name="eve", id="guest-3", guest=True)
PAST = datetime(2000, 1, 1, tzinfo=UTC)

# Only a test that waits for what never comes takes this long.
PATIENCE = 60

Pair = tuple[DatabasePresence, DatabasePresence]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """The presence of two processes."""
    both = DatabasePresence(), DatabasePresence()
    yield both
    for presence in both:
        await presence.close()


async def test_nothing_is_left_when_all_users_left(pair: Pair) -> None:
    here, there = pair
    for presence, key, user in ((here, "a1", ANN), (there, "a2", ANN), (there, "b1", BOB)):
        await presence.add("g", key, user, unique=user.guest)
        await presence.start_grace("g", key, user)
    await here.remove("g", "a1", ANN)
    await there.remove_all("g", {"a2": ANN, "b1": BOB})
    for model in (PresentUser, PresentConnection):
        assert await model.objects.acount() == 0
    assert {row.pk async for row in PresenceNode.objects.all()} == {here.node, there.node}


async def test_unused_rows_are_deleted_periodically(pair: Pair) -> None:
    here, _ = pair
    await here.add("in use", "a1", ANN)
    await here.add("empty", "a1", ANN)
    await here.remove("empty", "a1", ANN)
    assert await here.close_group("closed")
    assert await here.close_group("closed long ago")
    await PresenceGroup.objects.filter(pk="closed long ago").aupdate(closed_until=PAST)
    for _ in range(TIDY_EVERY):
        await here.heartbeat()
    assert {row.pk async for row in PresenceGroup.objects.all()} == {"in use", "closed"}
    with pytest.raises(GroupClosed):
        await here.add("closed", "a1", ANN)
    assert await here.add("closed long ago", "a1", ANN)
    assert await here.add("empty", "a1", ANN)


async def test_connections_without_a_lease_are_swept(pair: Pair) -> None:
    """As of a process that expired, added a connection and died."""
    dead, here = pair
    await dead.add("g", "a1", ANN)
    await PresenceNode.objects.filter(pk=dead.node).adelete()
    found = [departure for _ in range(TIDY_EVERY + 1) for departure in await here.heartbeat()]
    assert found == [Departure("g", ANN)]


async def test_a_sweep_stops_when_the_process_registers_again(pair: Pair) -> None:
    slow, here = pair
    await slow.add("g", "a1", ANN)
    entries = {row.pk: row.group async for row in PresentConnection.objects.all()}
    assert await here._reading.run(expiry.remove_connections, slow.node, entries) == []
    assert (await here.members("g")).users == [ANN]


async def test_a_process_that_is_being_swept_registers_after_the_sweep(pair: Pair) -> None:
    slow, here = pair
    await slow.add("g", "a1", ANN)
    await PresenceNode.objects.filter(pk=slow.node).aupdate(swept=True, lease=PAST)
    assert await slow._leasing.run(expiry.renew, slow.node) == ("swept", None)
    assert await here.heartbeat() == [Departure("g", ANN)]
    assert await slow.heartbeat() == [Arrival("g", ANN)]
    assert await slow.heartbeat() == []
    assert (await here.members("g")).users == [ANN]


async def test_a_change_that_waits_too_long_for_a_lock_is_unavailable(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = pair
    await here.add("g", "a1", ANN)
    monkeypatch.setattr(timeouts, "_SQLITE", "PRAGMA busy_timeout = 50")
    monkeypatch.setattr(timeouts, "_POSTGRESQL", "SET LOCAL lock_timeout = '50ms'")
    held, done = Event(), Event()

    def hold() -> None:
        with transaction.atomic():
            list(PresenceGroup.objects.select_for_update())
            held.set()
            done.wait()
        connections.close_all()

    holding = asyncio.create_task(asyncio.to_thread(hold))
    await asyncio.to_thread(held.wait)
    try:
        for call in (here.add("g", "b1", BOB), here.remove("g", "a1", ANN), here.close_group("g")):
            with pytest.raises(Unavailable) as raised:
                await call
            assert raised.value.retry
        # Reads do not wait for the lock.
        assert (await here.members("g")).users == [ANN]
    finally:
        done.set()
        await holding
    assert await here.remove("g", "a1", ANN)
    assert await here.add("g", "b1", BOB)


@contextmanager
def held(group: str) -> Iterator[None]:
    """Hold the group's lock, as a frozen process does."""
    begun, over = Event(), Event()

    def hold() -> None:
        try:
            with queries.locked(group):
                begun.set()
                over.wait()
        except Error:
            # The database has ended the transaction.
            pass
        finally:
            connections.close_all()

    holding = Thread(target=hold)
    holding.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        holding.join()


async def test_the_lock_of_a_frozen_process_is_released(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    if connections["default"].vendor == "sqlite":
        pytest.skip("SQLite ends no transaction of others")
    here, _ = pair
    await here.add("g", "a1", ANN)
    shorter = timeouts._POSTGRESQL.replace(f"{timeouts.STATEMENT_SECONDS}s", "200ms")
    monkeypatch.setattr(timeouts, "_POSTGRESQL", shorter)
    with held("g"):
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    assert await here.add("g", "b1", BOB)
                    break
                except Unavailable:
                    continue
    assert (await here.members("g")).users == [ANN, BOB]


async def test_a_locked_group_delays_only_the_sweep_of_its_processes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connections["default"].vendor == "sqlite":
        pytest.skip("SQLite has one lock for all groups")
    monkeypatch.setattr(timeouts, "_POSTGRESQL", "SET LOCAL lock_timeout = '50ms'")
    here, dead = pair
    also_dead = DatabasePresence()
    await here.heartbeat()
    await dead.add("g", "a1", ANN)
    await also_dead.add("h", "b1", BOB)
    await also_dead.close()
    nodes = PresenceNode.objects.exclude(pk=here.node)
    await nodes.aupdate(lease=PAST)
    with held("g"):
        assert await here.heartbeat() == [Departure("h", BOB)]
    await nodes.aupdate(lease=PAST)
    assert await here.heartbeat() == [Departure("g", ANN)]


# A slow database -----------------------------------------------------------------------------------


class Late:
    """Blocks a function of a module, before or after it runs, until ``go`` is set."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, *, after: bool = False
    ) -> None:
        self.go, self._reached = Event(), Event()
        self._what, self._after = getattr(module, name), after
        self._restore = lambda: monkeypatch.setattr(module, name, self._what)
        monkeypatch.setattr(module, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        answer = self._what(*arguments, **options) if self._after else None
        self._reached.set()
        self.go.wait()
        return answer if self._after else self._what(*arguments, **options)

    async def reached(self) -> None:
        """Wait until the function is blocked; later calls are not."""
        await asyncio.to_thread(self._reached.wait)
        self._restore()


async def cancel(call: asyncio.Task[Any]) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_call_that_takes_too_long_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT", 0.05)
    presence = DatabasePresence()
    late = Late(monkeypatch, queries, "members"), Late(monkeypatch, operations, "apply_changes")
    try:
        async with asyncio.timeout(PATIENCE):
            for call in (presence.members("g"), presence.start_grace("g", "a1", ANN)):
                with pytest.raises(Unavailable) as raised:
                    await call
                assert raised.value.retry
    finally:
        for each in late:
            each.go.set()
        await presence.close()


async def test_a_cancelled_add_is_not_applied_late(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pair
    late = Late(monkeypatch, operations, "apply_changes")
    call = asyncio.create_task(here.add("g", "a1", ANN))
    await late.reached()
    await cancel(call)
    late.go.set()
    assert not await here.remove("g", "a1", ANN)
    assert (await there.members("g")).users == []


@pytest.mark.parametrize("after", [False, True])
async def test_a_cancelled_remove_does_not_remove_a_later_add(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    here, there = pair
    await here.add("g", "a1", ANN)
    late = Late(monkeypatch, operations, "apply_changes", after=after)
    call = asyncio.create_task(here.remove("g", "a1", ANN))
    await late.reached()
    await cancel(call)
    coming = asyncio.create_task(here.add("g", "a1", ANN))
    late.go.set()
    assert await coming is after
    assert (await there.members("g")).users == [ANN]


async def test_a_removal_whose_call_was_cancelled_is_reported_by_the_next_call(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    for key, user in (("a1", ANN), ("b1", BOB)):
        await here.add("g", key, user)
    late = Late(monkeypatch, operations, "apply_changes", after=True)
    both = {"a1": ANN, "b1": BOB}
    call = asyncio.create_task(here.remove_all("g", both))
    await late.reached()
    await cancel(call)
    late.go.set()
    # A user that returned meanwhile is not out.
    assert await there.add("g", "b2", BOB)
    assert await here.remove_all("g", both) == [ANN]
    assert await there.remove("g", "b2", BOB)
    assert await here.remove_all("g", both) == []


async def test_a_removal_whose_confirmation_was_lost_is_reported_by_the_next_call(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the connection is lost after a commit."""
    here, _ = pair
    await here.add("g", "a1", ANN)
    apply_changes = operations.apply_changes

    def unanswered(*arguments: Any) -> None:
        apply_changes(*arguments)
        raise OperationalError("the connection was lost")

    with monkeypatch.context() as lost:
        lost.setattr(operations, "apply_changes", unanswered)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await here.remove("g", "a1", ANN)
    assert await here.remove("g", "a1", ANN)
    assert not await here.remove("g", "a1", ANN)


async def test_a_group_is_not_closed_when_the_call_was_cancelled(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    late = Late(monkeypatch, operations, "apply_changes")
    call = asyncio.create_task(here.close_group("g"))
    await late.reached()
    await cancel(call)
    late.go.set()
    await here.close()
    assert await there.add("g", "a1", ANN)


async def test_an_interrupted_resync_continues_with_the_next_heartbeat(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, here = pair
    groups = ["g", "h", "i"]
    for group in groups:
        await slow.add(group, "a1", ANN)
    await here.heartbeat()
    await PresenceNode.objects.filter(pk=slow.node).aupdate(lease=PAST)
    assert len(await here.heartbeat()) == 3
    apply_changes, calls = operations.apply_changes, 0

    def interrupted(*arguments: Any) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OperationalError("a lock was held for too long")
        return apply_changes(*arguments)

    monkeypatch.setattr(operations, "apply_changes", interrupted)
    with pytest.raises(Unavailable):
        await slow.heartbeat()
    found = await slow.heartbeat()
    assert await here.counts(groups) == [1, 1, 1]
    assert {each.group for each in found} == set(groups)


# Concurrency ----------------------------------------------------------------------------------------


async def result_of(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except (GroupFull, NameInUse) as error:
        return type(error)


def change_anything(presence: Presence, random: Random) -> Awaitable[Any]:
    """Add, remove or start the grace of one of a few users, connections and names."""
    id = random.randrange(6)
    user = User(name=random.choice("abcd"), id=f"guest-{id}", guest=True)
    key = f"{id}-{random.randrange(2)}"
    kind = random.choice(("add", "add", "start_grace", "remove", "remove"))
    if kind == "add":
        limit = random.choice((None, 2, 4))
        return presence.add("g", key, user, limit=limit, unique=random.random() < 0.5)
    return presence.start_grace("g", key, user) if kind == "start_grace" else presence.remove("g", key, user)


@pytest.mark.parametrize("seed", range(3))
async def test_a_batch_has_the_result_of_single_changes(pair: Pair, seed: int) -> None:
    here, _ = pair
    memory = MemoryPresence()
    together, one_by_one = Random(seed), Random(seed)
    # The first change would wait for the lease, and others would overtake it.
    await here.heartbeat()
    for _ in range(15):
        answers = await asyncio.gather(*(result_of(change_anything(here, together)) for _ in range(20)))
        assert answers == [await result_of(change_anything(memory, one_by_one)) for _ in range(20)]
        members = (await here.members("g")).users
        assert [user.id for user in members] == [user.id for user in (await memory.members("g")).users]


async def test_the_lease_does_not_wait_during_a_join_burst(pair: Pair) -> None:
    here, _ = pair
    await here.add("g", "a1", ANN)
    await PresenceNode.objects.aupdate(lease=PAST)
    go = Event()
    burst = [
        asyncio.ensure_future(pool.run(go.wait)) for pool in (here._writing, here._reading) for _ in range(2)
    ]
    heartbeat = asyncio.create_task(here.heartbeat())
    try:
        async with asyncio.timeout(PATIENCE):
            while await PresenceNode.objects.filter(lease=PAST).aexists():  # noqa: ASYNC110 (no event tells)
                await asyncio.sleep(0)
    finally:
        go.set()
        await asyncio.gather(heartbeat, *burst)


@pytest.mark.django_db
def test_groups_of_a_dead_process_are_swept_in_few_queries() -> None:
    many = [f"group {number}" for number in range(expiry.CHUNK + 20)]
    PresenceNode.objects.create(pk="dead", lease=PAST)
    for group in many:
        user = {"group": group, "user_id": ANN.id}
        PresentUser.objects.create(**user, name=ANN.name, guest=False, sort_key=b"ann")
        PresentConnection.objects.create(**user, connection="a1", node="dead")
    # In one of them, ann has a connection of another process.
    PresentConnection.objects.create(group=many[0], user_id=ANN.id, connection="a2", node="alive")
    found: list[Departure] = []
    with CaptureQueriesContext(connection) as queries:
        expiry.sweep(found.append)
    assert sorted(each.group for each in found) == sorted(many[1:])
    assert len(queries) < len(many) / 4
    assert [row.connection for row in PresentConnection.objects.all()] == ["a2"]
