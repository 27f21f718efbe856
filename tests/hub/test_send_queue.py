"""The send queue of one client: its order, its limits, its close."""

from __future__ import annotations

from typing import Any

import pytest

from rooms.hub.connection import Connection
from rooms.hub.send_queue import CORKED_FACTOR, MIN_FRAMES, SendQueueLimits
from rooms.hub.shared_frames import MAX_JOINED_FRAME
from rooms.protocol.commands import Ping
from rooms.protocol.errors import CloseCode
from rooms.protocol.events import Reply, RoomRemoved
from tests.hub.codecs import Lines, Plain, Silent
from tests.hub.factories import received


def make(protocol: type[Plain] = Plain, **limits: Any) -> Connection:
    return Connection("c", protocol(), limits=SendQueueLimits(**limits))


def stalled(connection: Connection) -> Connection:
    """A client that does not read what is being written."""
    connection.writing_since = 1.0
    return connection


def test_frames_are_popped_in_order_and_once() -> None:
    connection = make()
    connection.send(Ping())
    connection.push(b"push")
    connection.notify(RoomRemoved(room="a"))
    assert connection.pending_bytes == len(b"pingpushroom_removed")
    assert received(connection) == ["ping", "push", "room_removed"]
    assert (received(connection), connection.pending_bytes) == ([], 0)


def test_the_writer_is_woken_once_until_it_pops() -> None:
    woken: list[int] = []
    connection = Connection("c", Plain(), wake=lambda: woken.append(1))
    for _ in range(3):
        connection.push(b"x")
    assert len(woken) == 1
    connection.pop_all()
    connection.push(b"x")
    assert len(woken) == 2


def test_a_protocol_without_a_frame_for_an_event_receives_nothing() -> None:
    connection = make(Silent)
    connection.send(Ping())
    connection.notify(RoomRemoved(room="a"))
    assert connection.pop_all() == []
    connection.close(CloseCode.KICKED, "Out.")
    assert (connection.pop_all(), connection.close_code) == ([], CloseCode.KICKED)


# Joined frames ---------------------------------------------------------------------------------


def test_frames_are_joined_where_the_protocol_allows_it() -> None:
    connection = make(Lines)
    for frame in (b"one", b"two", b"three"):
        connection.push(frame)
    assert connection.pop_all() == [b"one\ntwo\nthree"]
    connection.push(b"four")
    assert connection.pop_all() == [b"four"]


def test_joined_frames_have_a_maximum_size() -> None:
    connection = make(Lines)
    half = b"x" * (MAX_JOINED_FRAME // 2)
    huge = b"y" * (MAX_JOINED_FRAME * 2)
    for frame in (half, b"a", half, huge, b"b"):
        connection.push(frame)
    frames = connection.pop_all()
    assert b"\n".join(frames).split(b"\n") == [half, b"a", half, huge, b"b"]
    assert [len(frame) <= MAX_JOINED_FRAME or frame == huge for frame in frames] == [True] * len(frames)
    assert connection.pending_bytes == 0


# Corking ----------------------------------------------------------------------------------------


def test_replies_overtake_corked_pushes() -> None:
    connection = make()
    connection.cork()
    connection.push(b"push")
    connection.notify(RoomRemoved(room="a"))
    connection.send(Reply(id=1, data={}))
    assert received(connection) == ["reply"]
    connection.uncork()
    assert received(connection) == ["push", "room_removed"]
    connection.push(b"later")
    assert received(connection) == ["later"]
    assert connection.pending_bytes == 0


def test_uncork_drops_pushes_that_the_reply_covers() -> None:
    connection = make()
    connection.cork()
    for group, seq in (("g", 1), ("g", 3), ("g", None), ("h", 1), (None, None)):
        connection.push(f"{group}{seq}".encode(), group, seq)
    connection.uncork("g", 2)
    assert received(connection) == ["g3", "gNone", "h1", "NoneNone"]
    assert connection.pending_bytes == 0


def test_corking_twice_loses_nothing_and_uncorking_twice_repeats_nothing() -> None:
    connection = make()
    connection.cork()
    connection.push(b"one")
    connection.cork()
    connection.push(b"two")
    connection.uncork()
    connection.uncork()
    assert received(connection) == ["one", "two"]


def test_corked_pushes_of_a_room_that_was_not_joined_are_dropped() -> None:
    connection = make()
    connection.drop_corked("g")
    connection.cork()
    for group in ("g", "h", None, "g"):
        connection.push(str(group).encode(), group)
    connection.drop_corked("g")
    connection.uncork()
    assert received(connection) == ["h", "None"]
    assert connection.pending_bytes == 0


# Sharing frames --------------------------------------------------------------------------------


def test_a_corked_client_shares_no_frames_until_it_is_uncorked() -> None:
    connection = make()
    assert connection.shared is Plain
    connection.send(Ping())
    connection.cork()
    connection.pop_all()
    assert connection.shared is None
    connection.uncork()
    assert connection.shared is Plain


def test_a_client_that_does_not_read_shares_no_frames_until_its_own_are_written() -> None:
    connection = stalled(make())
    connection.push(b"x")
    connection.pop_all()
    assert connection.shared is None
    connection.push(b"y")
    connection.writing_since = None
    assert connection.shared is None
    connection.pop_all()
    assert connection.shared is Plain


@pytest.mark.parametrize("corked", [False, True])
def test_a_closed_client_shares_no_frames(corked: bool) -> None:
    connection = make()
    if corked:
        connection.cork()
    connection.close(CloseCode.KICKED, "Out.")
    assert connection.shared is None
    connection.pop_all()
    assert connection.shared is None


def test_a_client_that_switches_protocol_shares_frames_of_the_new_one() -> None:
    connection = make()
    connection.switch_protocol(Lines())
    assert connection.shared is Lines


# Limits ------------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_is_closed_above_the_limit_of_frames() -> None:
    connection = stalled(make(frames=3))
    for _ in range(3):
        connection.push(b"x")
    assert connection.close_code is None
    connection.push(b"x")
    assert connection.close_code is CloseCode.SLOW_CONSUMER
    assert received(connection) == ["closing 4001"]
    assert connection.pending_bytes == 0


def test_a_client_that_does_not_read_is_closed_above_the_limit_of_bytes() -> None:
    connection = stalled(make(bytes=10))
    for _ in range(MIN_FRAMES):
        connection.push(b"xx")
    connection.push(b"xx")
    assert connection.close_code is None
    connection.push(b"x")
    assert connection.close_code is CloseCode.SLOW_CONSUMER


def test_a_few_frames_do_not_close_a_client_whatever_their_size() -> None:
    connection = stalled(make(bytes=10))
    for _ in range(MIN_FRAMES):
        connection.push(b"x" * 100)
    assert connection.close_code is None
    connection.push(b"x")
    assert connection.close_code is CloseCode.SLOW_CONSUMER


def test_corked_joins_and_leaves_that_a_member_list_covers_are_dropped() -> None:
    connection = make()
    connection.cork()
    corked = [("ann", True), ("bob", False), ("eve", True), ("eve", False), ("dan", False), ("dan", True)]
    for user, joins in corked:
        connection.push(f"{user} {joins}".encode(), "g", None, (user, joins))
    connection.push(b"other", "h", None, ("ann", True))
    connection.drop_presence("g", {"ann", "eve", "dan"}, complete=True)
    connection.uncork()
    assert received(connection) == ["eve False", "other"]


def test_an_incomplete_member_list_does_not_cover_users_that_are_not_on_it() -> None:
    connection = make()
    connection.cork()
    for user, joins in (("ann", True), ("bob", False)):
        connection.push(f"{user} {joins}".encode(), "g", None, (user, joins))
    connection.drop_presence("g", {"ann"}, complete=False)
    connection.uncork()
    assert received(connection) == ["bob False"]
    assert connection.pending_bytes == 0


def test_a_client_is_closed_when_too_much_is_corked() -> None:
    connection = make(bytes=10)
    connection.cork()
    connection.push(b"x" * 10 * CORKED_FACTOR)
    assert connection.close_code is None
    connection.push(b"x")
    assert connection.close_code is CloseCode.SLOW_CONSUMER
    assert received(connection) == ["closing 4001"]
    connection.uncork()
    assert (received(connection), connection.pending_bytes) == ([], 0)


def test_a_burst_within_one_turn_does_not_close_a_client() -> None:
    connection = make(frames=3, bytes=10)
    for _ in range(1000):
        connection.push(b"xxx")
    assert connection.close_code is None
    assert len(connection.pop_all()) == 1000


def test_one_large_frame_is_sent() -> None:
    connection = stalled(make(bytes=10))
    connection.push(b"x" * 100)
    assert connection.close_code is None


@pytest.mark.parametrize("limits", [{"frames": 4}, {"bytes": 4}])
def test_a_client_is_slow_when_more_than_half_of_the_queue_is_taken(limits: dict[str, int]) -> None:
    connection = make(**limits)
    connection.push(b"x")
    connection.push(b"x")
    assert not connection.is_slow()
    connection.push(b"x")
    assert connection.is_slow()


# Closing -----------------------------------------------------------------------------------------


def test_the_closing_frame_is_the_last() -> None:
    woken: list[int] = []
    connection = Connection("c", Plain(), wake=lambda: woken.append(1))
    connection.push(b"before")
    connection.close(CloseCode.KICKED, "Out.", retry_in=3)
    connection.push(b"after")
    connection.send(Ping())
    assert received(connection) == ["before", "closing 4503"]
    assert (connection.close_code, connection.close_reason) == (CloseCode.KICKED, "Out.")
    assert woken == [1, 1]


def test_a_corked_push_to_this_client_goes_before_the_closing_frame() -> None:
    connection = make()
    connection.cork()
    connection.push(b"corked")
    connection.close(CloseCode.KICKED, "Out.")
    assert received(connection) == ["corked", "closing 4503"]
    connection.uncork()
    assert received(connection) == []


def test_a_corked_push_to_a_group_is_not_sent_without_the_reply_before_it() -> None:
    connection = make()
    connection.cork()
    connection.push(b"of the room", "lobby", 7)
    connection.push(b"mine")
    connection.close(CloseCode.SERVER_RESTART, "Again.")
    assert received(connection) == ["mine", "closing 4000"]
    assert connection.pending_bytes == 0


def test_only_the_first_close_counts() -> None:
    connection = make()
    connection.close(CloseCode.KICKED, "Out.")
    connection.close(CloseCode.BANNED, "For good.")
    assert (connection.close_code, connection.close_reason) == (CloseCode.KICKED, "Out.")
    assert received(connection) == ["closing 4503"]


def test_a_close_can_discard_queued_frames() -> None:
    connection = make()
    connection.push(b"before")
    connection.cork()
    connection.push(b"corked")
    connection.close(CloseCode.SLOW_CONSUMER, "Too slow.", discard=True)
    assert received(connection) == ["closing 4001"]
    assert connection.pending_bytes == 0
