"""Pruning deletes expired messages, also in inactive rooms, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container
from datetime import timedelta
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from rooms.histories import pruning
from rooms.histories.database import DatabaseHistory
from rooms.hub.config import RoomConfig
from rooms.models import Application, Message, Sequence
from rooms.protocol.errors import Unavailable
from tests.histories.messages import RoomMaker

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]


@pytest.fixture
async def history() -> AsyncIterator[DatabaseHistory]:
    history = DatabaseHistory()
    yield history
    await history.close()


async def create_messages(room: RoomConfig, *days: float, keyed: Container[int] = ()) -> None:
    """Create messages by their age in days, oldest first; ``keyed`` has the numbers of those with a key."""
    now = timezone.now()
    for seq, age in enumerate(days, start=1):
        time, key = now - timedelta(days=age), f"key {seq}" if seq in keyed else None
        await Message.objects.acreate(room_id=room.id, seq=seq, event="message", data="1", time=time, key=key)
    await Sequence.objects.aupdate_or_create(room_id=room.id, defaults={"seq": len(days)})


async def stored(room: RoomConfig) -> list[int]:
    rows = Message.objects.filter(room_id=room.id).order_by("seq")
    return [seq async for seq in rows.values_list("seq", flat=True)]


async def test_messages_beyond_the_size_or_the_ttl_are_deleted(
    history: DatabaseHistory, make_room: RoomMaker
) -> None:
    few, short, both = (
        await make_room("few", history_size=2),
        await make_room("short", history_ttl=24 * 3600),
        await make_room("both", history_size=3, history_ttl=24 * 3600),
    )
    for room in (few, short, both):
        await create_messages(room, 3, 2, 1.5, 0.5, 0)
    assert await history.prune(dry_run=True) == 9
    assert await stored(few) == [1, 2, 3, 4, 5]
    assert await history.prune() == 9
    assert [await stored(room) for room in (few, short, both)] == [[4, 5], [4, 5], [4, 5]]
    assert await history.prune() == 0


async def test_a_room_inherits_its_retention_from_the_application_and_the_settings(
    history: DatabaseHistory, make_room: RoomMaker
) -> None:
    room = await make_room()
    await create_messages(room, 3, 2, 1, 0)
    with override_settings(ROOMS={"HISTORY_SIZE": 3}):
        assert await history.prune() == 1
    await Application.objects.aupdate(history_ttl=36 * 3600)
    assert await history.prune() == 1
    await Application.objects.aupdate(history_size=1)
    assert await history.prune() == 1
    assert await stored(room) == [4]


async def test_messages_are_deleted_in_chunks(
    history: DatabaseHistory, make_room: RoomMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "CHUNK", 2)
    rooms = [await make_room(name, history_size=1) for name in ("one", "two", "three")]
    for room in rooms:
        await create_messages(room, *[0] * 6)
    chunks: list[int] = []
    prune = pruning.prune

    def counted(retention: pruning.Retention) -> int:
        chunks.append(deleted := prune(retention))
        return deleted

    monkeypatch.setattr(pruning, "prune", counted)
    assert await history.prune() == 15
    assert chunks == [2, 2, 1] * 3
    assert [await stored(room) for room in rooms] == [[6]] * 3


async def test_rooms_are_read_in_chunks(
    history: DatabaseHistory, make_room: RoomMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "ROOMS_AT_ONCE", 2)
    for name in ("one", "two", "three", "four", "five"):
        await create_messages(await make_room(name, history_size=1), 0, 0)
    with mock.patch.object(pruning, "with_expired", wraps=pruning.with_expired) as with_expired:
        assert await history.prune() == 5
    assert [len(call.args[0]) for call in with_expired.call_args_list] == [2, 2, 1]


async def test_a_room_that_times_out_does_not_stop_the_rooms_after_it(
    history: DatabaseHistory, make_room: RoomMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "ROOMS_AT_ONCE", 1)
    rooms = [await make_room(name, history_size=1) for name in ("one", "huge", "three")]
    for room in rooms:
        await create_messages(room, 0, 0)
    some_expired = pruning.Retention.some_expired

    def slow(retention: pruning.Retention) -> set[int]:
        if retention.room == rooms[1].id:
            raise OperationalError("canceling statement due to statement timeout")
        return some_expired(retention)

    with monkeypatch.context() as loaded:
        loaded.setattr(pruning.Retention, "some_expired", slow)
        with pytest.raises(Unavailable):
            await history.prune()
        # Pruning continues after the room that failed, and then starts again.
        assert await history.prune() == 1
        assert [await stored(room) for room in rooms] == [[2], [1, 2], [2]]
        with pytest.raises(Unavailable):
            await history.prune()
    assert await history.prune() == 0
    assert await history.prune() == 1


async def test_a_message_with_a_key_stays_until_the_key_expires(
    history: DatabaseHistory, make_room: RoomMaker
) -> None:
    few, short = await make_room("few", history_size=2), await make_room("short", history_ttl=60)
    for room in (few, short):
        await create_messages(room, 3, 2, 0.9, 0.8, 0.7, 0, 0, keyed=(2, 3, 5))
    assert await history.prune(dry_run=True) == 6
    assert await history.prune() == 6
    assert [await stored(room) for room in (few, short)] == [[3, 5, 6, 7]] * 2
    # Readers do not get them.
    for room in (few, short):
        assert [each.seq for each in await history.messages_after(room, 0)] == [6, 7]
    with override_settings(ROOMS={"IDEMPOTENCY_TTL": 0.8 * 24 * 3600}):
        assert await history.prune() == 2
    with override_settings(ROOMS={"IDEMPOTENCY_TTL": 60}):
        assert await history.prune() == 2
    assert [await stored(room) for room in (few, short)] == [[6, 7]] * 2


async def test_messages_without_a_key_are_deleted_before_those_with_one(
    history: DatabaseHistory, make_room: RoomMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "CHUNK", 2)
    room = await make_room(history_size=1)
    await create_messages(room, *[0] * 9, keyed=range(1, 5))
    assert await history.prune(dry_run=True) == 4
    assert await history.prune() == 4
    assert await stored(room) == [1, 2, 3, 4, 9]
    assert await history.prune(dry_run=True) == await history.prune() == 0


async def test_messages_that_stay_are_not_read(
    history: DatabaseHistory, make_room: RoomMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every query reads a few of the oldest messages, however many stay."""
    monkeypatch.setattr(pruning, "CHUNK", 2)
    room = await make_room(history_size=1)
    await create_messages(room, 2, *[0] * 7, 2, 0, keyed=range(1, 10))
    retention = pruning.Retention(room=room.id, newest=10, count=1, seconds=60)
    assert await sync_to_async(pruning.prune)(retention) == 1
    # The ninth is as old as the first was, but follows messages that stay.
    assert await sync_to_async(pruning.prune)(retention) == 0
    assert await stored(room) == [*range(2, 11)]


def test_rooms_with_nothing_to_delete_are_only_read(room: RoomConfig) -> None:
    Sequence.objects.update_or_create(room_id=room.id, defaults={"seq": 5})
    with CaptureQueriesContext(connection) as captured:
        assert pruning.with_expired(found := pruning.some_rooms(0)) == []
    assert [each.room for each in found] == [room.id]
    assert pruning.some_rooms(room.id) == []
    assert not [each for each in captured if each["sql"].startswith(("DELETE", "UPDATE", "INSERT"))]
