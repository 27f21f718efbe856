"""The history in memory, beyond the interface that all histories share."""

from __future__ import annotations

import pytest
from msgspec import Raw

from rooms.histories import memory
from rooms.histories.memory import MemoryHistory
from tests.histories.messages import append_and_wait, message
from tests.records import room_record


async def test_a_stored_message_is_a_copy_and_no_view_into_a_frame() -> None:
    history, room = MemoryHistory(), room_record()
    frame = b'{"data": "hi"}' * 1000
    stored = (await append_and_wait(history, room, message(Raw(memoryview(frame)[9:13])))).message
    assert bytes(stored.data) == b'"hi"'
    assert not isinstance(memoryview(stored.data).obj, bytes) or len(memoryview(stored.data).obj) < 100


async def test_two_processes_have_different_epochs() -> None:
    room = room_record()
    one, other = MemoryHistory(), MemoryHistory()
    positions = [(await each.snapshot(room, None, 0)).position for each in (one, other)]
    assert positions[0] is not None
    assert positions[1] is not None
    assert positions[0].epoch != positions[1].epoch


async def test_a_deleted_room_leaves_nothing() -> None:
    history, room = MemoryHistory(), room_record()
    await append_and_wait(history, room, message(state=True), "k")
    before = (await history.snapshot(room, None, 9)).position
    await history.forget(room.id)
    await history.forget(room.id)
    snapshot = await history.snapshot(room, None, 9)
    assert (snapshot.messages, snapshot.state) == ([], [])
    assert before is not None
    assert snapshot.position is not None
    assert snapshot.position.epoch != before.epoch


async def test_the_number_of_keys_has_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    history, small, large = MemoryHistory(), room_record(history_size=2), room_record(id=2, history_size=6)
    monkeypatch.setattr(memory, "MAX_KEYS", 4)
    for each in (small, large):
        for number in range(9):
            await append_and_wait(history, each, message(), f"key {number}")
    await history.prune()
    assert [key for _, key in history._logs[small.id].keys] == [f"key {n}" for n in range(5, 9)]
    assert len(history._logs[large.id].keys) == 6


async def test_a_key_outlives_its_message() -> None:
    history, room = MemoryHistory(), room_record(history_size=1)
    for number in range(9):
        await append_and_wait(history, room, message(), f"key {number}")
    again = await append_and_wait(history, room, message(b'"again"'), "key 0")
    assert (again.expired, again.message.seq, bytes(again.message.data)) == (True, 1, b'"again"')
    assert [each.seq for each in history._logs[room.id].messages] == [9]
