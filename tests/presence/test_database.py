"""Presence in the database: what is its own beyond what every presence promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Event, Thread
from types import ModuleType
from typing import Any

import pytest
from django.db import Error, OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from rooms.concurrency import timeouts
from rooms.models import PresenceGroup, PresenceNode, PresenceTurn, PresentConnection, PresentUser
from rooms.presence import Arrival, Departure, database, expiry, group_commit, operations, queries
from rooms.presence.base import GroupClosed, GroupFull, NameInUse, Presence
from rooms.presence.database import TIDY_EVERY, DatabasePresence
from rooms.presence.memory import MemoryPresence
from rooms.protocol.errors import Unavailable
from rooms.protocol.types import User

pytestmark = [
    pytest.mark.database,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("impatient"),
]

ANN = User(name="ann", id="1", guest=False)
BOB = User(name="bob", id="guest-2", guest=True)
EVE = User(name="eve", id="guest-3", guest=True)
PAST = datetime(2000, 1, 1, tzinfo=UTC)

# Nothing takes so long but a test that waits for what never comes.
PATIENCE = 20

Pair = tuple[DatabasePresence, DatabasePresence]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Those of two processes."""
    both = DatabasePresence(), DatabasePresence()
    yield both
    for presence in both:
        await presence.close()


async def test_nothing_is_left_when_everybody_is_out(pair: Pair) -> None:
    here, there = pair
    for presence, place, user in ((here, "a1", ANN), (there, "a2", ANN), (there, "b1", BOB)):
        await presence.add("g", place, user, unique=user.guest)
        await presence.start_grace("g", place, user)
    await here.remove("g", "a1", ANN)
    await there.remove_all("g", {"a2": ANN, "b1": BOB})
    async with here.turn("g", ANN):
        pass
    for model in (PresentUser, PresentConnection, PresenceTurn):
        assert await model.objects.acount() == 0
    assert {row.pk async for row in PresenceNode.objects.all()} == {here.node, there.node}


async def test_what_nobody_needs_is_deleted_now_and_then(pair: Pair) -> None:
    here, _ = pair
    await here.add("in use", "a1", ANN)
    await here.add("empty", "a1", ANN)
    await here.remove("empty", "a1", ANN)
    assert await here.close_group("closed")
    assert await here.close_group("closed long ago")
    await PresenceGroup.objects.filter(pk="closed long ago").aupdate(closed_until=PAST)
    for user, until in (("over", PAST), ("going on", timezone.now() + timedelta(hours=1))):
        await PresenceTurn.objects.acreate(group="g", user_id=user, token="token", until=until)
    for _ in range(TIDY_EVERY):
        await here.heartbeat()
    assert {row.pk async for row in PresenceGroup.objects.all()} == {"in use", "closed"}
    assert [row.user_id async for row in PresenceTurn.objects.all()] == ["going on"]
    with pytest.raises(GroupClosed):
        await here.add("closed", "a1", ANN)
    assert await here.add("closed long ago", "a1", ANN)
    assert await here.add("empty", "a1", ANN)


async def test_what_was_said_without_a_lease_is_swept_in_the_end(pair: Pair) -> None:
    """As by a process that was taken for dead, said one thing more, and died."""
    dead, here = pair
    await dead.add("g", "a1", ANN)
    await PresenceNode.objects.filter(pk=dead.id).adelete()
    found = [departure for _ in range(TIDY_EVERY + 1) for departure in await here.heartbeat()]
    assert found == [Departure("g", ANN)]


async def test_a_sweep_of_one_who_says_everything_again_stops(pair: Pair) -> None:
    slow, here = pair
    await slow.add("g", "a1", ANN)
    entries = {row.pk: row.group async for row in PresentConnection.objects.all()}
    assert await here._reading.run(expiry.take_out, slow.node, entries) == []
    assert (await here.members("g")).users == [ANN]


async def test_a_process_that_is_being_swept_says_nothing_until_that_is_done(pair: Pair) -> None:
    slow, here = pair
    await slow.add("g", "a1", ANN)
    await PresenceNode.objects.filter(pk=slow.node).aupdate(swept=True, lease=PAST)
    assert await slow._leasing.run(expiry.renew, slow.node) == ("swept", None)
    assert await here.heartbeat() == [Departure("g", ANN)]
    assert await slow.heartbeat() == [Arrival("g", ANN)]
    assert await slow.heartbeat() == []
    assert (await here.members("g")).users == [ANN]


async def test_who_waits_too_long_for_a_lock_is_told_so(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
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
        for asking in (here.add("g", "b1", BOB), here.remove("g", "a1", ANN), here.close_group("g")):
            with pytest.raises(Unavailable) as raised:
                await asking
            assert raised.value.retry
        # Whoever asks who is there waits for nobody.
        assert (await here.members("g")).users == [ANN]
    finally:
        done.set()
        await holding
    assert await here.remove("g", "a1", ANN)
    assert await here.add("g", "b1", BOB)


@contextmanager
def held(group: str) -> Iterator[None]:
    """A process was frozen while it had the group's lock."""
    begun, over = Event(), Event()

    def hold() -> None:
        try:
            with queries.locked(group):
                begun.set()
                over.wait()
        except Error:
            # The database has ended it.
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


async def test_a_process_that_is_frozen_in_a_group_keeps_nobody_out_of_it_for_long(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
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


async def test_a_group_that_is_held_keeps_only_its_own_from_being_swept(
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


# A database that answers late ----------------------------------------------------------------------


class Late:
    """What the module does under this name is held up, before it or after it, until ``go`` is set."""

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
        """It is held up now; nothing that is asked from now on is."""
        await asyncio.to_thread(self._reached.wait)
        self._restore()


async def give_up(asking: asyncio.Task[Any]) -> None:
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_who_waits_too_long_for_an_answer_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (database, group_commit):
        monkeypatch.setattr(module, "STATEMENT_TIMEOUT", 0.05)
    presence = DatabasePresence()
    late = Late(monkeypatch, queries, "members"), Late(monkeypatch, operations, "carry_out")
    try:
        async with asyncio.timeout(PATIENCE):
            for asking in (presence.members("g"), presence.start_grace("g", "a1", ANN)):
                with pytest.raises(Unavailable) as raised:
                    await asking
                assert raised.value.retry
    finally:
        for each in late:
            each.go.set()
        await presence.close()


async def test_who_does_not_wait_to_come_in_is_not_let_in_late(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    late = Late(monkeypatch, operations, "carry_out")
    asking = asyncio.create_task(here.add("g", "a1", ANN))
    await late.reached()
    await give_up(asking)
    late.go.set()
    assert not await here.remove("g", "a1", ANN)
    assert (await there.members("g")).users == []


@pytest.mark.parametrize("after", [False, True])
async def test_who_comes_again_is_not_taken_out_late(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    here, there = pair
    await here.add("g", "a1", ANN)
    late = Late(monkeypatch, operations, "carry_out", after=after)
    asking = asyncio.create_task(here.remove("g", "a1", ANN))
    await late.reached()
    await give_up(asking)
    coming = asyncio.create_task(here.add("g", "a1", ANN))
    late.go.set()
    assert await coming is after
    assert (await there.members("g")).users == [ANN]


async def test_who_was_taken_out_too_late_to_be_told_is_told_when_asked_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    for place, user in (("a1", ANN), ("b1", BOB)):
        await here.add("g", place, user)
    late = Late(monkeypatch, operations, "carry_out", after=True)
    both = {"a1": ANN, "b1": BOB}
    asking = asyncio.create_task(here.remove_all("g", both))
    await late.reached()
    await give_up(asking)
    late.go.set()
    # Who has come back meanwhile is not out.
    assert await there.add("g", "b2", BOB)
    assert await here.remove_all("g", both) == [ANN]
    assert await there.remove("g", "b2", BOB)
    assert await here.remove_all("g", both) == []


async def test_whose_departure_was_not_answered_is_told_when_asked_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the database goes away with the answer to a commit."""
    here, _ = pair
    await here.add("g", "a1", ANN)
    carry_out = operations.carry_out

    def unanswered(*arguments: Any) -> None:
        carry_out(*arguments)
        raise OperationalError("the connection was lost")

    with monkeypatch.context() as lost:
        lost.setattr(operations, "carry_out", unanswered)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await here.remove("g", "a1", ANN)
    assert await here.remove("g", "a1", ANN)
    assert not await here.remove("g", "a1", ANN)


async def test_what_nobody_waits_for_is_not_closed_nor_a_turn_taken(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    for module, name, ask in (
        (operations, "carry_out", here.close_group("g")),
        (queries, "take_turn", here.take_turn("g", ANN, "token")),
    ):
        late = Late(monkeypatch, module, name)
        asking = asyncio.create_task(ask)
        await late.reached()
        await give_up(asking)
        late.go.set()
    await here.close()
    assert await there.add("g", "a1", ANN)
    assert await there.take_turn("g", ANN, "another")


async def test_saying_everything_again_goes_on_where_it_was_interrupted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, here = pair
    groups = ["g", "h", "i"]
    for group in groups:
        await slow.add(group, "a1", ANN)
    await here.heartbeat()
    await PresenceNode.objects.filter(pk=slow.node).aupdate(lease=PAST)
    assert len(await here.heartbeat()) == 3
    carry_out, calls = operations.carry_out, 0

    def interrupted(*arguments: Any) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OperationalError("a lock was held for too long")
        return carry_out(*arguments)

    monkeypatch.setattr(operations, "carry_out", interrupted)
    with pytest.raises(Unavailable):
        await slow.heartbeat()
    found = await slow.heartbeat()
    assert await here.counts(groups) == [1, 1, 1]
    assert {each.group for each in found} == set(groups)


# PresenceDiffs --------------------------------------------------------------------------------------------


async def answer_of(asking: Awaitable[Any]) -> Any:
    try:
        return await asking
    except (GroupFull, NameInUse) as error:
        return type(error)


def ask_anything(presence: Presence, random: Random) -> Awaitable[Any]:
    """One of few users, with one of few connections and names, comes, fades or goes."""
    id = random.randrange(6)
    user = User(name=random.choice("abcd"), id=f"guest-{id}", guest=True)
    place = f"{id}-{random.randrange(2)}"
    kind = random.choice(("add", "add", "start_grace", "remove", "remove"))
    if kind == "add":
        limit = random.choice((None, 2, 4))
        return presence.add("g", place, user, limit=limit, unique=random.random() < 0.5)
    return (
        presence.start_grace("g", place, user) if kind == "start_grace" else presence.remove("g", place, user)
    )


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_done_together_is_as_if_done_one_by_one(pair: Pair, seed: int) -> None:
    here, _ = pair
    memory = MemoryPresence()
    together, one_by_one = Random(seed), Random(seed)
    # Whoever came first would wait for the lease, and others would overtake.
    await here.heartbeat()
    for _ in range(15):
        answers = await asyncio.gather(*(answer_of(ask_anything(here, together)) for _ in range(20)))
        assert answers == [await answer_of(ask_anything(memory, one_by_one)) for _ in range(20)]
        members = (await here.members("g")).users
        assert [user.id for user in members] == [user.id for user in (await memory.members("g")).users]


async def test_the_lease_does_not_wait_behind_a_crowd(pair: Pair) -> None:
    here, _ = pair
    await here.add("g", "a1", ANN)
    await PresenceNode.objects.aupdate(lease=PAST)
    go = Event()
    crowd = [
        asyncio.ensure_future(pool.run(go.wait)) for pool in (here._writing, here._reading) for _ in range(2)
    ]
    beating = asyncio.create_task(here.heartbeat())
    try:
        async with asyncio.timeout(PATIENCE):
            while await PresenceNode.objects.filter(lease=PAST).aexists():  # noqa: ASYNC110 (told by nobody)
                await asyncio.sleep(0)
    finally:
        go.set()
        await asyncio.gather(beating, *crowd)


@pytest.mark.django_db
def test_many_groups_of_a_dead_process_are_swept_together() -> None:
    many = [f"group {number}" for number in range(expiry.CHUNK + 20)]
    PresenceNode.objects.create(pk="dead", lease=PAST)
    for group in many:
        user = {"group": group, "user_id": ANN.id}
        PresentUser.objects.create(**user, name=ANN.name, guest=False, place=b"ann")
        PresentConnection.objects.create(**user, connection="a1", node="dead")
    # In one of them ann is elsewhere as well.
    PresentConnection.objects.create(group=many[0], user_id=ANN.id, connection="a2", node="alive")
    found: list[Departure] = []
    with CaptureQueriesContext(connection) as queries:
        expiry.sweep(found.append)
    assert sorted(each.group for each in found) == sorted(many[1:])
    assert len(queries) < len(many) / 4
    assert [row.connection for row in PresentConnection.objects.all()] == ["a2"]
