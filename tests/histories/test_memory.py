"""The history in memory: what is its own beyond what every history promises."""

from __future__ import annotations

from msgspec import Raw

from rooms.histories.memory import MemoryHistory
from tests.histories.said import message
from tests.records import room_record


async def test_what_is_kept_is_a_copy_and_not_a_view_into_a_frame() -> None:
    history, room = MemoryHistory(), room_record()
    frame = b'{"data": "hi"}' * 1000
    kept = (await history.append(room, message(Raw(memoryview(frame)[9:13])))).message
    assert bytes(kept.data) == b'"hi"'
    assert not isinstance(memoryview(kept.data).obj, bytes) or len(memoryview(kept.data).obj) < 100


async def test_two_processes_count_apart_and_their_epochs_tell() -> None:
    room = room_record()
    one, other = MemoryHistory(), MemoryHistory()
    positions = [(await each.snapshot(room, None, 0)).position for each in (one, other)]
    assert positions[0] is not None
    assert positions[1] is not None
    assert positions[0].epoch != positions[1].epoch


async def test_a_room_that_is_gone_is_forgotten() -> None:
    history, room = MemoryHistory(), room_record()
    await history.append(room, message(state=True), "k")
    before = (await history.snapshot(room, None, 9)).position
    await history.forget(room.id)
    await history.forget(room.id)
    snapshot = await history.snapshot(room, None, 9)
    assert (snapshot.messages, snapshot.state) == ([], [])
    assert before is not None
    assert snapshot.position is not None
    assert snapshot.position.epoch != before.epoch


async def test_keys_of_messages_that_went_are_let_go() -> None:
    history, room = MemoryHistory(), room_record(history_count=2)
    for number in range(9):
        await history.append(room, message(), f"key {number}")
    await history.snapshot(room, None, 9)
    assert len(history._logs[room.id].keys) == 2
