"""Presence in the database: what is its own beyond what every presence promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from django.db import connections, transaction
from django.utils import timezone

from rooms.errors import Unavailable
from rooms.events import User
from rooms.models import PresenceGroup, PresenceNode, PresenceTurn, PresentConnection, PresentUser
from rooms.presence import Departure, rows
from rooms.presence.base import GroupClosed
from rooms.presence.database import TIDY_EVERY, DatabasePresence

pytestmark = pytest.mark.django_db(transaction=True)

ANN = User(name="ann", id="1", guest=False)
BOB = User(name="bob", id="guest-2", guest=True)
PAST = datetime(2000, 1, 1, tzinfo=UTC)

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
    assert await slow.beat() == []
    assert (await here.members("g")).users == [ANN]


async def test_who_waits_too_long_for_a_lock_is_told_so(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = pair
    await here.add("g", "a1", ANN)
    monkeypatch.setattr(rows, "LOCK_SECONDS", 0.05)
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
