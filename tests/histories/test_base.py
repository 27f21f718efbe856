"""The interface of histories, for each history that stores messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.test import override_settings
from msgspec import UNSET

from rooms.histories import Appended, History
from rooms.histories.database import DatabaseHistory
from rooms.histories.memory import MemoryHistory
from rooms.histories.redis import RedisHistory
from rooms.hub.config import RoomConfig
from rooms.models import Room
from rooms.protocol import timestamps
from rooms.protocol.errors import BadRequest
from rooms.protocol.events import Message
from rooms.protocol.results import SentData
from rooms.protocol.types import Position, User
from tests.histories.messages import ANN, RoomMaker, append_and_wait, message

pytestmark = pytest.mark.database

BOB = User(name="bob", id="7", guest=False)


@pytest.fixture(params=["memory", "database", "redis"])
async def history(request: pytest.FixtureRequest, transactional_db: None) -> AsyncIterator[History]:
    history: History
    if request.param == "redis":
        history = RedisHistory(url=request.getfixturevalue("redis_url"))
    else:
        history = MemoryHistory() if request.param == "memory" else DatabaseHistory()
    yield history
    await history.close()


async def appended(history: History, room: RoomConfig, count: int) -> list[Message]:
    return [
        (await append_and_wait(history, room, message(b"%d" % number))).message
        for number in range(1, count + 1)
    ]


def ago(hours: float) -> str:
    return timestamps.ago(hours * 3600)


def numbers(messages: list[Message]) -> list[int | None]:
    return [each.seq for each in messages]


async def position(history: History, room: RoomConfig) -> Position:
    found = (await history.snapshot(room, None, 0)).position
    assert found is not None
    return found


async def test_a_room_without_messages_is_empty(history: History, room: RoomConfig) -> None:
    snapshot = await history.snapshot(room, None, 50)
    assert (snapshot.messages, snapshot.state, snapshot.recovered) == ([], [], False)
    assert snapshot.position is not None
    assert snapshot.position.seq == 0
    assert snapshot.position.epoch
    assert (await history.page(room, before=None, after=None, limit=10)).messages == []
    assert await history.messages_after(room, 0) == []


async def test_positions_of_rooms(history: History, make_room: RoomMaker) -> None:
    one, other, silent = await make_room(), await make_room("other"), await make_room("silent")
    await appended(history, one, 3)
    await appended(history, other, 2)
    found = await history.positions([one.id, other.id, silent.id, 10**9])
    assert found[one.id] == await position(history, one)
    assert (found[one.id].seq, found[other.id].seq) == (3, 2)
    assert silent.id not in found or found[silent.id].seq == 0
    assert 10**9 not in found


async def test_numbers_begin_at_1_in_each_room(history: History, make_room: RoomMaker) -> None:
    one, other = await make_room(), await make_room("other")
    assert numbers(await appended(history, one, 3)) == [1, 2, 3]
    assert numbers(await appended(history, other, 2)) == [1, 2]
    assert (await position(history, one)).epoch != (await position(history, other)).epoch


async def test_a_message_is_read_as_it_was_appended(history: History, room: RoomConfig) -> None:
    data = b'{"b" : 1.0, "a": "\\u0000 \\ud83d\\ude00 \xc3\xa9"}'
    kept = [
        (await append_and_wait(history, room, message(data, event="score", sender=BOB))).message,
        (await append_and_wait(history, room, message(sender=None))).message,
        (await append_and_wait(history, room, message(state=True))).message,
    ]
    assert (await history.snapshot(room, None, 50)).messages == kept
    assert (await history.page(room, before=None, after=None, limit=50)).messages == kept
    assert await history.messages_after(room, 0) == kept
    assert bytes(kept[0].data) == data
    assert (kept[0].sender, kept[0].event, kept[0].state) == (BOB, "score", UNSET)
    assert (kept[1].sender, kept[2].state) == (None, True)


async def test_concurrent_appends_get_numbers_without_holes(history: History, room: RoomConfig) -> None:
    kept = await asyncio.gather(
        *(append_and_wait(history, room, message(b"%d" % number)) for number in range(60))
    )
    assert [each.message.seq for each in kept] == list(range(1, 61))
    assert [int(bytes(each.data)) for each in (await history.snapshot(room, None, 99)).messages] == list(
        range(60)
    )


# Keys --------------------------------------------------------------------------------------------


async def test_a_used_key_returns_the_first_message(history: History, room: RoomConfig) -> None:
    first = await append_and_wait(history, room, message(b"1"), "k")
    again = await append_and_wait(history, room, message(b"2"), "k")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.message == first.message
    assert (await position(history, room)).seq == 1


async def test_a_key_belongs_to_a_sender_in_a_room(history: History, make_room: RoomMaker) -> None:
    one, other = await make_room(), await make_room("other")
    for room, sender in ((one, ANN), (one, BOB), (one, None), (other, ANN)):
        assert not (await append_and_wait(history, room, message(sender=sender), "k")).duplicate
    assert (await position(history, one)).seq == 3


async def test_without_a_key_a_message_is_appended_again(history: History, room: RoomConfig) -> None:
    for _ in range(2):
        assert not (await append_and_wait(history, room, message(b"1"))).duplicate


async def test_concurrent_appends_with_one_key_are_one_message(history: History, room: RoomConfig) -> None:
    kept = await asyncio.gather(*(append_and_wait(history, room, message(b"%d" % n), "k") for n in range(5)))
    assert [each.duplicate for each in kept] == [False, True, True, True, True]
    assert {each.message.seq for each in kept} == {1}
    assert len({bytes(each.message.data) for each in kept}) == 1


async def test_a_key_outlives_its_message(history: History, make_room: RoomMaker) -> None:
    room = await make_room(history_size=2)
    first = (await append_and_wait(history, room, message(b"1", time=ago(23)), "k")).message
    await appended(history, room, 70)
    await history.prune()
    assert numbers(await history.messages_after(room, 0)) == [70, 71]
    again = await append_and_wait(history, room, message(b"1"), "k")
    assert (again.duplicate, again.message.seq, again.message.time) == (True, 1, first.time)
    assert await history.find(room, ANN.id, "k") == SentData(seq=1, time=first.time)
    assert (await position(history, room)).seq == 71
    assert numbers(await history.messages_after(room, 0)) == [70, 71]


async def test_a_key_outlives_a_message_that_expired_by_age(history: History, make_room: RoomMaker) -> None:
    room = await make_room(history_ttl=3600)
    await append_and_wait(history, room, message(time=ago(23)), "k")
    await history.prune()
    assert await history.messages_after(room, 0) == []
    assert (await append_and_wait(history, room, message(), "k")).duplicate


async def test_a_key_expires(history: History, make_room: RoomMaker) -> None:
    room = await make_room(history_size=2)
    await append_and_wait(history, room, message(time=ago(25)), "k")
    assert (await append_and_wait(history, room, message(), "k")).duplicate
    await appended(history, room, 70)
    await history.prune()
    assert not (await append_and_wait(history, room, message(), "k")).duplicate
    assert (await position(history, room)).seq == 72
    with override_settings(ROOMS={"IDEMPOTENCY_TTL": 26 * 3600}):
        await append_and_wait(history, room, message(time=ago(25)), "later")
        await appended(history, room, 70)
        await history.prune()
        assert (await append_and_wait(history, room, message(), "later")).duplicate


async def test_the_key_of_a_stored_message_does_not_expire(history: History, room: RoomConfig) -> None:
    kept = (await append_and_wait(history, room, message(b"1", time=ago(48)), "k")).message
    await history.prune()
    again = await append_and_wait(history, room, message(b"2"), "k")
    assert (again.duplicate, again.expired, again.message) == (True, False, kept)
    assert await history.find(room, ANN.id, "k") == SentData(seq=1, time=kept.time)


async def test_a_message_is_found_by_its_senders_key(history: History, make_room: RoomMaker) -> None:
    room, other = await make_room(), await make_room("other")
    assert await history.find(room, ANN.id, "k") is None
    first = (await append_and_wait(history, room, message(b"1", event="score", state=True), "k")).message
    await append_and_wait(history, room, message(b"2", sender=BOB), "k")
    await append_and_wait(history, room, message(b"3"))
    await append_and_wait(history, room, message(b"4"), "k")
    assert await history.find(room, ANN.id, "k") == SentData(seq=1, time=first.time)
    found = await history.find(room, BOB.id, "k")
    assert found is not None
    assert found.seq == 2
    for sender, key in ((ANN.id, "K"), (ANN.id, ""), ("", "k"), ("guest-9", "k")):
        assert await history.find(room, sender, key) is None
    assert await history.find(other, ANN.id, "k") is None


# State -------------------------------------------------------------------------------------------


async def test_state_has_the_last_value_of_each_event_in_the_order_of_the_first(
    history: History, room: RoomConfig
) -> None:
    for event, value in (("topic", b"1"), ("score", b"2"), ("topic", b"3")):
        await append_and_wait(history, room, message(value, event=event, state=True))
    await append_and_wait(history, room, message(b"4", event="score"))
    state = (await history.snapshot(room, None, 0)).state
    assert [(each.event, bytes(each.data), each.seq, each.state) for each in state] == [
        ("topic", b"3", 3, True),
        ("score", b"2", 2, True),
    ]


async def test_null_removes_state_and_is_still_a_message(history: History, room: RoomConfig) -> None:
    await append_and_wait(history, room, message(b"1", event="topic", state=True))
    kept = (await append_and_wait(history, room, message(b"null", event="topic", state=True))).message
    snapshot = await history.snapshot(room, None, 50)
    assert snapshot.state == []
    assert snapshot.messages[-1] == kept
    await append_and_wait(history, room, message(b"null", event="never", state=True))


async def test_a_repeated_key_does_not_set_state_again(history: History, room: RoomConfig) -> None:
    await append_and_wait(history, room, message(b"1", event="topic", state=True), "k")
    await append_and_wait(history, room, message(b"2", event="topic", state=True))
    await append_and_wait(history, room, message(b"1", event="topic", state=True), "k")
    assert [bytes(each.data) for each in (await history.snapshot(room, None, 0)).state] == [b"2"]


@override_settings(ROOMS={"MAX_STATE_KEYS": 3})
async def test_a_state_key_beyond_the_maximum_takes_no_number_and_fails_alone(
    history: History, room: RoomConfig
) -> None:
    kept = await asyncio.gather(
        *(append_and_wait(history, room, message(b"1", event=event, state=True)) for event in "abcdea"),
        append_and_wait(history, room, message(b"2", event="d")),
        return_exceptions=True,
    )
    refused = [each for each in kept if isinstance(each, BaseException)]
    assert [type(each) for each in refused] == [BadRequest] * 2
    assert "3" in str(refused[0])
    assert [each.message.seq for each in kept if isinstance(each, Appended)] == [1, 2, 3, 4, 5]
    snapshot = await history.snapshot(room, None, 50)
    assert [each.event for each in snapshot.state] == ["a", "b", "c"]
    assert [each.event for each in snapshot.messages] == ["a", "b", "c", "a", "d"]
    assert (await position(history, room)).seq == 5


@override_settings(ROOMS={"MAX_STATE_KEYS": 1})
async def test_the_key_of_a_refused_state_message_stays_unused(history: History, room: RoomConfig) -> None:
    await append_and_wait(history, room, message(b"1", event="a", state=True))
    with pytest.raises(BadRequest):
        await append_and_wait(history, room, message(b"1", event="b", state=True), "k")
    assert await history.find(room, ANN.id, "k") is None
    await append_and_wait(history, room, message(b"null", event="a", state=True))
    assert not (await append_and_wait(history, room, message(b"1", event="b", state=True), "k")).duplicate


# Reading -----------------------------------------------------------------------------------------


async def test_a_snapshot_has_the_newest_messages(history: History, room: RoomConfig) -> None:
    await appended(history, room, 5)
    snapshot = await history.snapshot(room, None, 2)
    assert (numbers(snapshot.messages), snapshot.recovered) == ([4, 5], False)
    assert snapshot.position is not None
    assert snapshot.position.seq == 5
    assert (await history.snapshot(room, None, 0)).messages == []


@pytest.mark.parametrize(
    ("before", "after", "limit", "found", "more"),
    [
        (None, None, 3, [7, 8, 9], True),
        (None, None, 9, [1, 2, 3, 4, 5, 6, 7, 8, 9], False),
        (7, None, 3, [4, 5, 6], True),
        (3, None, 3, [1, 2], False),
        (1, None, 3, [], False),
        (None, 4, 3, [5, 6, 7], True),
        (None, 6, 3, [7, 8, 9], False),
        (None, 9, 3, [], False),
        (7, 4, 5, [5, 6], False),
        (9, 2, 3, [3, 4, 5], True),
        (None, None, 0, [], True),
        (-5, None, 3, [], False),
        (None, -5, 2, [1, 2], True),
        (2**63 - 1, -(2**63), 9, [1, 2, 3, 4, 5, 6, 7, 8, 9], False),
    ],
)
async def test_a_page_lies_between_two_numbers(
    history: History,
    room: RoomConfig,
    before: int | None,
    after: int | None,
    limit: int,
    found: list[int],
    more: bool,
) -> None:
    await appended(history, room, 9)
    page = await history.page(room, before=before, after=after, limit=limit)
    assert (numbers(page.messages), page.more) == (found, more)


async def test_messages_after_a_number(history: History, room: RoomConfig) -> None:
    await appended(history, room, 5)
    assert numbers(await history.messages_after(room, 3)) == [4, 5]
    assert numbers(await history.messages_after(room, 5)) == []
    with override_settings(ROOMS={"RECOVERY_MAX_MESSAGES": 2}):
        assert numbers(await history.messages_after(room, 1)) == [2, 3]


# Recovery ----------------------------------------------------------------------------------------


async def resumed(history: History, room: RoomConfig, seq: int, epoch: str | None = None) -> Any:
    here = await position(history, room)
    snapshot = await history.snapshot(room, Position(epoch=epoch or here.epoch, seq=seq), 2)
    assert snapshot.position == here
    return numbers(snapshot.messages), snapshot.recovered


async def test_a_recovery_has_exactly_the_messages_after_the_position(
    history: History, room: RoomConfig
) -> None:
    await appended(history, room, 5)
    assert await resumed(history, room, 1) == ([2, 3, 4, 5], True)
    assert await resumed(history, room, 5) == ([], True)
    assert await resumed(history, room, 0) == ([1, 2, 3, 4, 5], True)


async def test_a_position_of_another_epoch_is_not_recovered(history: History, room: RoomConfig) -> None:
    await appended(history, room, 5)
    assert await resumed(history, room, 3, epoch="another") == ([4, 5], False)
    assert await resumed(history, room, 6) == ([4, 5], False)
    assert await resumed(history, room, 2**63 - 1) == ([4, 5], False)


@override_settings(ROOMS={"RECOVERY_MAX_MESSAGES": 3})
async def test_more_messages_than_the_maximum_are_not_recovered(history: History, room: RoomConfig) -> None:
    await appended(history, room, 5)
    assert await resumed(history, room, 2) == ([3, 4, 5], True)
    assert await resumed(history, room, 1) == ([4, 5], False)


async def test_expired_messages_are_not_recovered(history: History, make_room: RoomMaker) -> None:
    room = await make_room(history_size=3)
    await appended(history, room, 5)
    assert await resumed(history, room, 2) == ([3, 4, 5], True)
    assert await resumed(history, room, 1) == ([4, 5], False)


# Retention ---------------------------------------------------------------------------------------


async def test_messages_beyond_the_size_are_not_read(history: History, make_room: RoomMaker) -> None:
    room = await make_room(history_size=3)
    await appended(history, room, 5)
    assert numbers((await history.snapshot(room, None, 50)).messages) == [3, 4, 5]
    page = await history.page(room, before=None, after=None, limit=50)
    assert (numbers(page.messages), page.more) == ([3, 4, 5], False)
    assert numbers(await history.messages_after(room, 0)) == [3, 4, 5]


async def test_messages_beyond_the_ttl_are_not_read(history: History, make_room: RoomMaker) -> None:
    room = await make_room(history_ttl=60)
    old = timestamps.ago(61)
    await append_and_wait(history, room, message(time=old))
    await appended(history, room, 1)
    assert numbers((await history.snapshot(room, None, 50)).messages) == [2]
    assert (await position(history, room)).seq == 2
    assert await resumed(history, room, 0) == ([2], False)


async def test_numbers_continue_when_all_messages_expired(history: History, make_room: RoomMaker) -> None:
    room = await make_room(history_ttl=60)
    old = timestamps.ago(61)
    before = await position(history, room)
    for _ in range(3):
        await append_and_wait(history, room, message(time=old))
    assert (await append_and_wait(history, room, message())).message.seq == 4
    assert (await position(history, room)).epoch == before.epoch


async def test_pruning_deletes_only_messages_that_are_not_read(
    history: History, make_room: RoomMaker
) -> None:
    room, silent = await make_room(history_size=3), await make_room("silent", history_size=2)
    await appended(history, room, 5)
    await appended(history, silent, 5)
    before = await history.snapshot(room, None, 50)
    would = await history.prune(dry_run=True)
    assert await history.prune() == would
    assert await history.prune(dry_run=True) == 0
    assert await history.snapshot(room, None, 50) == before
    assert numbers((await history.snapshot(silent, None, 50)).messages) == [4, 5]


async def test_a_deleted_room_leaves_nothing(history: History, make_room: RoomMaker) -> None:
    room, other = await make_room(), await make_room("other")
    await appended(history, room, 3)
    await appended(history, other, 1)
    await Room.objects.filter(pk=room.id).adelete()
    await history.forget(room.id)
    assert list(await history.positions([room.id, other.id])) == [other.id]
    assert numbers(await history.messages_after(other, 0)) == [1]
