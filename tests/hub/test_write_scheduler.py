"""Writing what piled up: one write for each, two turns later, and nobody waits for who does not read."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from rooms.hub.connection import Connection
from rooms.hub.hub import Hub
from rooms.hub.send_queue import SendQueueLimits
from rooms.hub.shared_frames import LONGEST_WRITE
from rooms.hub.write_scheduler import WRITES_A_TURN, DirectWriter, WriteScheduler
from rooms.protocol.commands import Ping
from rooms.protocol.errors import CloseCode
from rooms.protocol.frame_protocol import TEXT, frame
from tests.hub.codecs import Plain, message


class Loop:
    """Turns of an event loop, by hand."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def turn(self) -> int:
        """How much there was to be called."""
        due = list(self.later)
        self.later.clear()
        for call in due:
            call()
        return len(due)

    def turns(self) -> int:
        """Until nothing is left; how many it took."""
        count = 0
        while self.turn():
            count += 1
        return count


class Wire:
    """Takes what is written as long as it is ``free``."""

    def __init__(self) -> None:
        self.free = True
        self.written: list[bytes] = []
        self.closed: list[int] = []
        self.drained: Callable[[], None] = lambda: None
        self.error: Exception | None = None

    def write(self, data: bytes) -> bool:
        if self.error is not None:
            raise self.error
        self.written.append(data)
        return self.free

    def on_drained(self, call: Callable[[], None]) -> None:
        self.drained = call

    def close(self, code: int, reason: str) -> None:
        self.closed.append(code)


class House:
    def __init__(self) -> None:
        self.loop = Loop()
        self.flusher = WriteScheduler(self.loop.later.append)
        self.hub = Hub(flush=self.flusher.add)

    def client(self, **limits: int) -> tuple[Connection, Wire]:
        made, wire = Connection("c", Plain(), limits=SendQueueLimits(**limits)), Wire()
        DirectWriter(made, wire, self.flusher)
        self.hub.group_add("g", made)
        return made, wire


def text(*said: str) -> bytes:
    return b"".join(frame(TEXT, each.encode()) for each in said)


@pytest.fixture
def house() -> House:
    return House()


def test_what_two_turns_bring_leaves_in_one_write_for_each(house: House) -> None:
    clients = [house.client() for _ in range(3)]
    house.hub.group_send("g", message("one"))
    house.loop.turn()
    house.hub.group_send("g", message("two"))
    assert [wire.written for _, wire in clients] == [[]] * 3
    assert house.loop.turns() == 1
    assert [wire.written for _, wire in clients] == [[text("one", "two")]] * 3
    # The same bytes, not as many copies of them.
    assert len({id(wire.written[0]) for _, wire in clients}) == 1
    assert house.loop.turns() == 0


def test_answers_and_what_the_room_is_told_keep_their_order(house: House) -> None:
    ann, wire = house.client()
    house.client()
    house.hub.group_send("g", message("one"))
    ann.send(Ping())
    house.hub.group_send("g", message("two"))
    house.hub.group_send("g", message("three"))
    house.loop.turns()
    assert wire.written == [text("one", "ping", "two", "three")]


def test_an_answer_alone_leaves_too(house: House) -> None:
    ann, wire = house.client()
    ann.send(Ping())
    house.loop.turns()
    ann.send(Ping())
    house.loop.turns()
    assert wire.written == [text("ping")] * 2


def test_what_waits_may_be_written_at_once(house: House) -> None:
    clients = [house.client() for _ in range(3)]
    house.hub.group_send("g", message("one"))
    house.flusher.flush()
    assert [wire.written for _, wire in clients] == [[text("one")]] * 3
    house.hub.group_send("g", message("two"))
    house.loop.turns()
    assert [wire.written for _, wire in clients] == [[text("one"), text("two")]] * 3


def test_a_crowd_is_written_to_in_several_turns(house: House) -> None:
    wires = [house.client()[1] for _ in range(2 * WRITES_A_TURN + 1)]
    house.hub.group_send("g", message("one"))
    house.loop.turn()
    for written in (WRITES_A_TURN, 2 * WRITES_A_TURN, 2 * WRITES_A_TURN + 1):
        assert house.loop.turn() == 1
        assert sum(bool(wire.written) for wire in wires) == written
        house.hub.group_send("g", message(f"after {written}"))
    house.loop.turns()
    said = text("one", *(f"after {n}" for n in (WRITES_A_TURN, 2 * WRITES_A_TURN, 2 * WRITES_A_TURN + 1)))
    assert all(b"".join(wire.written) == said for wire in wires)
    # What is said while a round is being written is the next one, for all.
    assert [len(wire.written) for wire in (wires[0], wires[-1])] == [3, 3]


def test_large_pieces_are_not_copied_together(house: House) -> None:
    ann, wire = house.client()
    house.client()
    ann.send(Ping())
    house.hub.group_send("g", message("x" * LONGEST_WRITE))
    house.loop.turns()
    assert wire.written == [text("ping"), text("x" * LONGEST_WRITE)]


# Who does not read -------------------------------------------------------------------------------


def test_nothing_is_written_to_who_does_not_read_until_it_does(house: House) -> None:
    slow, wire = house.client()
    _, other = house.client()
    wire.free = False
    house.hub.group_send("g", message("one"))
    house.loop.turns()
    assert slow.writing_since is not None
    for said in ("two", "three"):
        house.hub.group_send("g", message(said))
        house.loop.turns()
    assert (wire.written, other.written) == ([text("one")], [text("one"), text("two"), text("three")])
    wire.free = True
    wire.drained()
    house.loop.turns()
    assert (wire.written, slow.writing_since) == ([text("one"), text("two", "three")], None)


def test_who_does_not_read_is_closed_by_the_bounds_of_its_outbox(house: House) -> None:
    slow, wire = house.client(frames=5)
    _, other = house.client()
    wire.free = False
    for number in range(10):
        house.hub.group_send("g", message(f"m{number}"))
        house.loop.turns()
    assert slow.close_code is CloseCode.SLOW_CONSUMER
    assert wire.written == [text("m0"), text(f"closing {int(CloseCode.SLOW_CONSUMER)}")]
    assert set(wire.closed) == {CloseCode.SLOW_CONSUMER}
    assert other.written == [text(f"m{number}") for number in range(10)]


def test_the_last_word_is_written_also_where_nobody_reads(house: House) -> None:
    slow, wire = house.client()
    wire.free = False
    house.hub.group_send("g", message("one"))
    house.loop.turns()
    slow.send(Ping())
    slow.close(CloseCode.KICKED, "Out.")
    house.loop.turns()
    assert wire.written == [text("one"), text("ping", f"closing {int(CloseCode.KICKED)}")]
    assert wire.closed == [CloseCode.KICKED]
    wire.drained()
    # From here on the heartbeat counts.
    assert slow.writing_since is not None


def test_one_that_cannot_be_written_to_keeps_nobody_else_from_being_told(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    broken, wire = house.client()
    _, other = house.client()
    wire.error = RuntimeError("no such handle")
    with caplog.at_level(logging.WARNING, "rooms.hub"):
        house.hub.group_send("g", message("one"))
        house.loop.turns()
    assert other.written == [text("one")]
    assert broken.close_code is CloseCode.INTERNAL_ERROR
    assert "no such handle" in caplog.text


def test_what_cannot_be_flushed_keeps_nobody_else_from_being_told(house: House) -> None:
    class Broken:
        unwritten = True

        def flush(self, most: int, /) -> int:
            raise ValueError("broken")

    _, wire = house.client()
    house.flusher.add(Broken())
    house.hub.group_send("g", message("one"))
    house.loop.turn()
    with pytest.raises(ValueError, match="broken"):
        house.loop.turn()
    house.loop.turns()
    assert wire.written == [text("one")]


def test_one_that_cannot_even_be_closed_keeps_nobody_else_from_being_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, wire = house.client()
    _, other = house.client()
    wire.error = RuntimeError("no such handle")
    monkeypatch.setattr(broken.protocol, "encode", lambda event: 1 / 0)
    house.hub.group_send("g", message("one"))
    house.loop.turns()
    assert other.written == [text("one")]
