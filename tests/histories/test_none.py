"""Rooms without history: they store state, but no messages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from django.test import override_settings

from rooms.histories.none import NoHistory
from rooms.hub.config import RoomConfig
from rooms.models import Message, StateMessage
from rooms.protocol.errors import BadRequest
from rooms.protocol.types import Position
from tests.histories.messages import ANN, append_and_wait, message


@pytest.fixture
async def history(transactional_db: None) -> AsyncIterator[NoHistory]:
    history = NoHistory()
    yield history
    await history.close()


async def test_messages_have_no_number_and_are_not_stored(history: NoHistory, room: RoomConfig) -> None:
    sent = message()
    for _ in range(2):
        appended = await append_and_wait(history, room, sent, "k")
        assert (appended.message, appended.duplicate) == (sent, False)
    assert await history.messages_after(room, 0) == []
    page = await history.page(room, before=None, after=None, limit=9)
    assert (page.messages, page.more) == ([], False)
    assert not await Message.objects.aexists()


async def test_a_snapshot_has_no_position_and_recovers_nothing(history: NoHistory, room: RoomConfig) -> None:
    snapshot = await history.snapshot(room, Position(epoch="e", seq=1), 9)
    assert (snapshot.position, snapshot.messages, snapshot.recovered) == (None, [], False)


async def test_state_is_stored(history: NoHistory, room: RoomConfig) -> None:
    for event, value in (("topic", b"1"), ("score", b"2"), ("topic", b"3")):
        await append_and_wait(history, room, message(value, event=event, state=True))
    state = (await history.snapshot(room, None, 0)).state
    assert [(each.event, bytes(each.data), each.seq) for each in state] == [
        ("topic", b"3", None),
        ("score", b"2", None),
    ]
    await append_and_wait(history, room, message(b"null", event="topic", state=True))
    assert [each.event for each in (await history.snapshot(room, None, 0)).state] == ["score"]


@override_settings(ROOMS={"MAX_STATE_KEYS": 2})
async def test_the_number_of_state_keys_has_a_maximum(history: NoHistory, room: RoomConfig) -> None:
    for event in ("topic", "score"):
        await append_and_wait(history, room, message(b"1", event=event, state=True))
    with pytest.raises(BadRequest):
        await append_and_wait(history, room, message(b"1", event="third", state=True))
    await append_and_wait(history, room, message(b"2", event="topic", state=True))
    await append_and_wait(history, room, message(b"null", event="third", state=True))
    await append_and_wait(history, room, message(b"null", event="score", state=True))
    await append_and_wait(history, room, message(b"3", event="third", state=True))
    state = (await history.snapshot(room, None, 0)).state
    assert [(each.event, bytes(each.data)) for each in state] == [("topic", b"2"), ("third", b"3")]


async def test_no_message_is_found_by_its_key(history: NoHistory, room: RoomConfig) -> None:
    await append_and_wait(history, room, message(), "k")
    assert await history.find(room, ANN.id, "k") is None


async def test_forget_leaves_the_state_to_the_rooms_row(history: NoHistory, room: RoomConfig) -> None:
    await append_and_wait(history, room, message(state=True))
    await history.forget(room.id)
    assert await StateMessage.objects.acount() == 1
