"""Writes: one per client, two turns later; a client that does not read delays no other."""

from __future__ import annotations

import logging

import pytest

from rooms.hub.shared_frames import MAX_WRITE
from rooms.hub.write_scheduler import WRITES_PER_TURN, DirectWriter
from rooms.protocol.commands import Ping
from rooms.protocol.errors import CloseCode
from tests.hub.factories import Socket, WiredRoom, connection, text_frames


def test_events_of_two_turns_leave_in_one_write_per_client(wired: WiredRoom) -> None:
    clients = [wired.client() for _ in range(3)]
    wired.broadcast("one")
    wired.loop.turn()
    wired.broadcast("two")
    assert [socket.written for _, socket in clients] == [[]] * 3
    assert wired.loop.run() == 1
    assert [socket.written for _, socket in clients] == [[text_frames("one", "two")]] * 3
    # The same bytes, not as many copies of them.
    assert len({id(socket.written[0]) for _, socket in clients}) == 1
    assert wired.loop.run() == 0


def test_replies_and_events_of_the_room_keep_their_order(wired: WiredRoom) -> None:
    ann, socket = wired.client()
    wired.client()
    wired.broadcast("one")
    ann.send(Ping())
    wired.broadcast("two")
    wired.broadcast("three")
    wired.loop.run()
    assert socket.written == [text_frames("one", "ping", "two", "three")]


def test_a_reply_alone_is_written(wired: WiredRoom) -> None:
    ann, socket = wired.client()
    ann.send(Ping())
    wired.loop.run()
    ann.send(Ping())
    wired.loop.run()
    assert socket.written == [text_frames("ping")] * 2


def test_flush_writes_at_once(wired: WiredRoom) -> None:
    clients = [wired.client() for _ in range(3)]
    wired.broadcast("one")
    wired.scheduler.flush()
    assert [socket.written for _, socket in clients] == [[text_frames("one")]] * 3
    wired.broadcast("two")
    wired.loop.run()
    assert [socket.written for _, socket in clients] == [[text_frames("one"), text_frames("two")]] * 3


def test_many_clients_are_written_to_in_several_turns(wired: WiredRoom) -> None:
    totals = (WRITES_PER_TURN, 2 * WRITES_PER_TURN, 2 * WRITES_PER_TURN + 1)
    sockets = [wired.client()[1] for _ in range(totals[-1])]
    wired.broadcast("one")
    wired.loop.turn()
    for total in totals:
        assert wired.loop.turn() == 1
        assert sum(bool(socket.written) for socket in sockets) == total
        wired.broadcast(f"after {total}")
    wired.loop.run()
    expected = text_frames("one", *(f"after {total}" for total in totals))
    assert all(b"".join(socket.written) == expected for socket in sockets)
    # Events that are sent while a window is being written are in the next one, for all members.
    assert [len(socket.written) for socket in (sockets[0], sockets[-1])] == [3, 3]


def test_large_pieces_are_not_copied_together(wired: WiredRoom) -> None:
    ann, socket = wired.client()
    wired.client()
    ann.send(Ping())
    wired.broadcast("x" * MAX_WRITE)
    wired.loop.run()
    assert socket.written == [text_frames("ping"), text_frames("x" * MAX_WRITE)]


# Clients that do not read ------------------------------------------------------------------------


def test_nothing_is_written_to_a_client_that_does_not_read_until_it_does(wired: WiredRoom) -> None:
    slow, socket = wired.client()
    _, other = wired.client()
    socket.reads = False
    wired.broadcast("one")
    wired.loop.run()
    assert slow.writing_since is not None
    for event in ("two", "three"):
        wired.broadcast(event)
        wired.loop.run()
    assert socket.written == [text_frames("one")]
    assert other.written == [text_frames("one"), text_frames("two"), text_frames("three")]
    socket.reads = True
    socket.drained()
    wired.loop.run()
    assert socket.written == [text_frames("one"), text_frames("two", "three")]
    assert slow.writing_since is None


def test_a_client_that_does_not_read_is_closed_by_the_limits_of_its_queue(wired: WiredRoom) -> None:
    slow, socket = wired.client(frames=5)
    _, other = wired.client()
    socket.reads = False
    for number in range(10):
        wired.broadcast(f"m{number}")
        wired.loop.run()
    assert slow.close_code is CloseCode.SLOW_CONSUMER
    assert socket.written == [text_frames("m0"), text_frames(f"closing {int(CloseCode.SLOW_CONSUMER)}")]
    assert set(socket.closed) == {CloseCode.SLOW_CONSUMER}
    assert other.written == [text_frames(f"m{number}") for number in range(10)]


def test_the_closing_frame_is_written_to_a_client_that_does_not_read(wired: WiredRoom) -> None:
    slow, socket = wired.client()
    socket.reads = False
    wired.broadcast("one")
    wired.loop.run()
    slow.send(Ping())
    slow.close(CloseCode.KICKED, "Out.")
    wired.loop.run()
    assert socket.written == [text_frames("one"), text_frames("ping", f"closing {int(CloseCode.KICKED)}")]
    assert socket.closed == [CloseCode.KICKED]
    socket.drained()
    # From here on the periodic check counts the time.
    assert slow.writing_since is not None


# Failures ----------------------------------------------------------------------------------------


def test_a_failed_write_closes_its_client_and_delays_no_other(
    wired: WiredRoom, caplog: pytest.LogCaptureFixture
) -> None:
    broken, socket = wired.client()
    _, other = wired.client()
    socket.error = RuntimeError("no such handle")
    with caplog.at_level(logging.WARNING, "rooms.hub"):
        wired.broadcast("one")
        wired.loop.run()
    assert other.written == [text_frames("one")]
    assert broken.close_code is CloseCode.INTERNAL_ERROR
    assert "no such handle" in caplog.text


def test_a_failed_flush_delays_no_other_client(wired: WiredRoom) -> None:
    class Broken:
        unwritten = True

        def flush(self, limit: int, /) -> int:
            raise ValueError("broken")

    _, socket = wired.client()
    wired.scheduler.add(Broken())
    wired.broadcast("one")
    wired.loop.turn()
    with pytest.raises(ValueError, match="broken"):
        wired.loop.turn()
    wired.loop.run()
    assert socket.written == [text_frames("one")]


def test_a_client_that_cannot_be_closed_delays_no_other(
    wired: WiredRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, socket = wired.client()
    _, other = wired.client()
    socket.error = RuntimeError("no such handle")
    monkeypatch.setattr(broken.protocol, "encode", lambda event: 1 / 0)
    wired.broadcast("one")
    wired.loop.run()
    assert other.written == [text_frames("one")]


# The end of a connection -------------------------------------------------------------------------


def test_the_end_writes_what_is_left_and_nothing_later(wired: WiredRoom) -> None:
    ann, socket = connection(), Socket()
    writer = DirectWriter(ann, socket, wired.scheduler)
    assert ann.writer is socket
    ann.send(Ping())
    writer.end()
    assert (socket.written, ann.writer) == ([text_frames("ping")], None)
    wired.loop.run()
    ann.push(b"late")
    assert wired.loop.run() == 0
    assert socket.written == [text_frames("ping")]


def test_the_end_writes_the_closing_frame(wired: WiredRoom) -> None:
    ann, socket = connection(), Socket()
    writer = DirectWriter(ann, socket, wired.scheduler)
    ann.close(CloseCode.KICKED, "Out.")
    writer.end()
    assert socket.written == [text_frames(f"closing {int(CloseCode.KICKED)}")]
    assert socket.closed == [CloseCode.KICKED]
