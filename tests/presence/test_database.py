"""Presence in the database: what is its own beyond what every presence promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

import pytest
from django.db import Error, OperationalError, connections, transaction
from django.utils import timezone

from rooms import bounds
from rooms.errors import Unavailable
from rooms.events import User
from rooms.models import PresenceGroup, PresenceNode, PresenceTurn, PresentConnection, PresentUser
from rooms.presence import Arrival, Departure, database, rows
from rooms.presence.base import GroupClosed
from rooms.presence.database import TIDY_EVERY, DatabasePresence

pytestmark = pytest.mark.django_db(transaction=True)

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
    for presence, connection, user in ((here, "a1", ANN), (there, "a2", ANN), (there, "b1", BOB)):
        await presence.add("g", connection, user, unique=user.guest)
        await presence.fade("g", connection, user)
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
        await here.beat()
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
    await PresenceNode.objects.filter(pk=dead.node).adelete()
    found = [departure for _ in range(TIDY_EVERY + 1) for departure in await here.beat()]
    assert found == [Departure("g", ANN)]


async def test_a_sweep_of_one_who_says_everything_again_stops(pair: Pair) -> None:
    slow, here = pair
    await slow.add("g", "a1", ANN)
    assert await here._pool.run(rows._sweep_group, slow.node, "g") == []
    assert (await here.members("g")).users == [ANN]


async def test_a_process_that_is_being_swept_says_nothing_until_that_is_done(pair: Pair) -> None:
    slow, here = pair
    await slow.add("g", "a1", ANN)
    await PresenceNode.objects.filter(pk=slow.node).aupdate(swept=True, lease=PAST)
    assert await slow._pool.run(rows.renew, slow.node) == "swept"
    assert await here.beat() == [Departure("g", ANN)]
    assert await slow.beat() == [Arrival("g", ANN)]
    assert await slow.beat() == []
    assert (await here.members("g")).users == [ANN]


async def test_who_waits_too_long_for_a_lock_is_told_so(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = pair
    await here.add("g", "a1", ANN)
    monkeypatch.setattr(bounds, "_SQLITE", "PRAGMA busy_timeout = 50")
    monkeypatch.setattr(bounds, "_POSTGRESQL", "SET LOCAL lock_timeout = '50ms'")
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
            with rows._group(group):
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
    shorter = bounds._POSTGRESQL.replace(f"{bounds.STATEMENT_SECONDS}s", "200ms")
    monkeypatch.setattr(bounds, "_POSTGRESQL", shorter)
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
    monkeypatch.setattr(bounds, "_POSTGRESQL", "SET LOCAL lock_timeout = '50ms'")
    here, dead = pair
    also_dead = DatabasePresence()
    await here.beat()
    await dead.add("g", "a1", ANN)
    await also_dead.add("h", "b1", BOB)
    await also_dead.close()
    nodes = PresenceNode.objects.exclude(pk=here.node)
    await nodes.aupdate(lease=PAST)
    with held("g"):
        assert await here.beat() == [Departure("h", BOB)]
    await nodes.aupdate(lease=PAST)
    assert await here.beat() == [Departure("g", ANN)]


# A database that answers late ----------------------------------------------------------------------


class Late:
    """What ``rows`` does under this name is held up, before it or after it, until ``go`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *, after: bool = False) -> None:
        self.go, self._reached = Event(), Event()
        self._what, self._after = getattr(rows, name), after
        self._restore = lambda: monkeypatch.setattr(rows, name, self._what)
        monkeypatch.setattr(rows, name, self)

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
    monkeypatch.setattr(database, "ANSWER_SECONDS", 0.05)
    presence = DatabasePresence()
    late = Late(monkeypatch, "members")
    try:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Unavailable) as raised:
                await presence.members("g")
        assert raised.value.retry
    finally:
        late.go.set()
        await presence.close()


async def test_who_does_not_wait_to_come_in_is_not_let_in_late(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    late = Late(monkeypatch, "add")
    asking = asyncio.create_task(here.add("g", "a1", ANN))
    await late.reached()
    await give_up(asking)
    assert not await here.remove("g", "a1", ANN)
    late.go.set()
    # Its threads have ended.
    await here.close()
    assert (await there.members("g")).users == []


async def test_who_comes_again_is_not_taken_out_late(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pair
    await here.add("g", "a1", ANN)
    late = Late(monkeypatch, "remove")
    asking = asyncio.create_task(here.remove("g", "a1", ANN))
    await late.reached()
    await give_up(asking)
    assert not await here.add("g", "a1", ANN)
    late.go.set()
    await here.close()
    assert (await there.members("g")).users == [ANN]


async def test_who_was_taken_out_too_late_to_be_told_is_told_when_asked_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    for connection, user in (("a1", ANN), ("b1", BOB)):
        await here.add("g", connection, user)
    late = Late(monkeypatch, "remove", after=True)
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


async def test_what_nobody_waits_for_is_not_closed_nor_a_turn_taken(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    for name, arguments in (("close_group", ("g",)), ("take_turn", ("g", ANN, "token"))):
        late = Late(monkeypatch, name)
        asking = asyncio.create_task(getattr(here, name)(*arguments))
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
    for user in (ANN, BOB, EVE):
        await slow.add("g", user.id, user)
    await here.beat()
    await PresenceNode.objects.filter(pk=slow.node).aupdate(lease=PAST)
    assert len(await here.beat()) == 3
    add, calls = rows.add, 0

    def interrupted(*arguments: Any, **named: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OperationalError("a lock was held for too long")
        return add(*arguments, **named)

    monkeypatch.setattr(rows, "add", interrupted)
    with pytest.raises(Unavailable):
        await slow.beat()
    await slow.beat()
    assert (await here.members("g")).users == [ANN, BOB, EVE]
