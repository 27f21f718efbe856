"""One client's outbox: its order, its bounds, its last word."""

from __future__ import annotations

from typing import Any

import pytest

from rooms.hub.connection import Connection
from rooms.hub.send_queue import FEW_FRAMES, MOST_HELD, SendQueueLimits
from rooms.hub.shared_frames import LONGEST_JOINED_FRAME
from rooms.protocol.commands import Ping
from rooms.protocol.errors import CloseCode
from rooms.protocol.events import Reply, RoomRemoved
from tests.hub.codecs import Lines, Plain, Silent, told


def made(protocol: type[Plain] = Plain, **limits: Any) -> Connection:
    return Connection("c", protocol(), limits=SendQueueLimits(**limits))


def writing(connection: Connection) -> Connection:
    """As if a write had begun that does not end."""
    connection.writing_since = 1.0
    return connection


def test_what_is_queued_leaves_in_order_and_once() -> None:
    connection = made()
    connection.send(Ping())
    connection.push(b"push")
    connection.notify(RoomRemoved(room="a"))
    assert connection.waiting == len(b"pingpushroom_removed")
    assert told(connection) == ["ping", "push", "room_removed"]
    assert (told(connection), connection.waiting) == ([], 0)


def test_the_writer_is_woken_once_until_it_takes() -> None:
    woken: list[int] = []
    connection = Connection("c", Plain(), wake=lambda: woken.append(1))
    for _ in range(3):
        connection.push(b"x")
    assert len(woken) == 1
    connection.take()
    connection.push(b"x")
    assert len(woken) == 2


def test_a_protocol_without_a_word_for_it_is_told_nothing() -> None:
    connection = made(Silent)
    connection.send(Ping())
    connection.notify(RoomRemoved(room="a"))
    assert connection.take() == []
    connection.close(CloseCode.KICKED, "Out.")
    assert (connection.take(), connection.close_code) == ([], CloseCode.KICKED)


# Together ----------------------------------------------------------------------------------------


def test_frames_leave_as_one_where_the_protocol_allows_it() -> None:
    connection = made(Lines)
    for frame in (b"one", b"two", b"three"):
        connection.push(frame)
    assert connection.take() == [b"one\ntwo\nthree"]
    connection.push(b"four")
    assert connection.take() == [b"four"]


def test_joined_frames_have_a_longest() -> None:
    connection = made(Lines)
    half = b"x" * (LONGEST_JOINED_FRAME // 2)
    huge = b"y" * (LONGEST_JOINED_FRAME * 2)
    for frame in (half, b"a", half, huge, b"b"):
        connection.push(frame)
    frames = connection.take()
    assert b"\n".join(frames).split(b"\n") == [half, b"a", half, huge, b"b"]
    assert [len(frame) <= LONGEST_JOINED_FRAME or frame == huge for frame in frames] == [True] * len(frames)
    assert connection.waiting == 0


# Held back ---------------------------------------------------------------------------------------


def test_answers_overtake_what_is_held_back() -> None:
    connection = made()
    connection.hold()
    connection.push(b"push")
    connection.notify(RoomRemoved(room="a"))
    connection.send(Reply(id=1, data={}))
    assert told(connection) == ["reply"]
    connection.release()
    assert told(connection) == ["push", "room_removed"]
    connection.push(b"later")
    assert told(connection) == ["later"]
    assert connection.waiting == 0


def test_a_release_leaves_out_what_the_answer_has_told() -> None:
    connection = made()
    connection.hold()
    for group, seq in (("g", 1), ("g", 3), ("g", None), ("h", 1), (None, None)):
        connection.push(f"{group}{seq}".encode(), group, seq)
    connection.release("g", 2)
    assert told(connection) == ["g3", "gNone", "h1", "NoneNone"]
    assert connection.waiting == 0


def test_holding_twice_loses_nothing_and_releasing_twice_repeats_nothing() -> None:
    connection = made()
    connection.hold()
    connection.push(b"one")
    connection.hold()
    connection.push(b"two")
    connection.release()
    connection.release()
    assert told(connection) == ["one", "two"]


# Together with others ---------------------------------------------------------------------------


def test_who_waits_for_an_answer_is_told_alone_until_it_is_there() -> None:
    connection = made()
    assert connection.hears is Plain
    connection.send(Ping())
    connection.hold()
    connection.take()
    assert connection.hears is None
    connection.release()
    assert connection.hears is Plain


def test_who_does_not_read_is_told_alone_until_all_of_its_own_is_written() -> None:
    connection = writing(made())
    connection.push(b"x")
    connection.take()
    assert connection.hears is None
    connection.push(b"y")
    connection.writing_since = None
    assert connection.hears is None
    connection.take()
    assert connection.hears is Plain


@pytest.mark.parametrize("held", [False, True])
def test_who_is_closed_hears_nothing_any_more(held: bool) -> None:
    connection = made()
    if held:
        connection.hold()
    connection.close(CloseCode.KICKED, "Out.")
    assert connection.hears is None
    connection.take()
    assert connection.hears is None


def test_who_speaks_another_protocol_hears_that() -> None:
    connection = made()
    connection.speak(Lines())
    assert connection.hears is Lines


# Bounds ------------------------------------------------------------------------------------------


def test_a_client_that_does_not_read_is_closed_by_the_number_of_frames() -> None:
    connection = writing(made(frames=3))
    for _ in range(3):
        connection.push(b"x")
    assert connection.close_code is None
    connection.push(b"x")
    assert connection.close_code is CloseCode.SLOW_CONSUMER
    assert told(connection) == ["closing 4001"]
    assert connection.waiting == 0


def test_a_client_that_does_not_read_is_closed_by_the_bytes() -> None:
    connection = writing(made(bytes=10))
    for _ in range(FEW_FRAMES):
        connection.push(b"xx")
    connection.push(b"xx")
    assert connection.close_code is None
    connection.push(b"x")
    assert connection.close_code is CloseCode.SLOW_CONSUMER


def test_a_few_frames_are_no_sign_of_slowness_however_large_they_are() -> None:
    connection = writing(made(bytes=10))
    for _ in range(FEW_FRAMES):
        connection.push(b"x" * 100)
    assert connection.close_code is None
    connection.push(b"x")
    assert connection.close_code is CloseCode.SLOW_CONSUMER


def test_what_a_list_has_told_is_left_out_of_what_is_held() -> None:
    connection = made()
    connection.hold()
    held = [("ann", True), ("bob", False), ("eve", True), ("eve", False), ("dan", False), ("dan", True)]
    for user, came in held:
        connection.push(f"{user} {came}".encode(), "g", None, (user, came))
    connection.push(b"other", "h", None, ("ann", True))
    connection.drop_told("g", {"ann", "eve", "dan"}, complete=True)
    connection.release()
    assert told(connection) == ["eve False", "other"]


def test_a_list_that_is_cut_short_says_nothing_of_others() -> None:
    connection = made()
    connection.hold()
    for user, came in (("ann", True), ("bob", False)):
        connection.push(f"{user} {came}".encode(), "g", None, (user, came))
    connection.drop_told("g", {"ann"}, complete=False)
    connection.release()
    assert told(connection) == ["bob False"]
    assert connection.waiting == 0


def test_what_is_held_back_has_a_most_too() -> None:
    connection = made(bytes=10)
    connection.hold()
    connection.push(b"x" * 10 * MOST_HELD)
    assert connection.close_code is None
    connection.push(b"x")
    assert connection.close_code is CloseCode.SLOW_CONSUMER
    assert told(connection) == ["closing 4001"]
    connection.release()
    assert (told(connection), connection.waiting) == ([], 0)


def test_a_burst_of_one_turn_is_no_slowness() -> None:
    connection = made(frames=3, bytes=10)
    for _ in range(1000):
        connection.push(b"xxx")
    assert connection.close_code is None
    assert len(connection.take()) == 1000


def test_one_large_frame_goes_through() -> None:
    connection = writing(made(bytes=10))
    connection.push(b"x" * 100)
    assert connection.close_code is None


@pytest.mark.parametrize("limits", [{"frames": 4}, {"bytes": 4}])
def test_more_than_half_is_slow(limits: dict[str, int]) -> None:
    connection = made(**limits)
    connection.push(b"x")
    connection.push(b"x")
    assert not connection.is_slow()
    connection.push(b"x")
    assert connection.is_slow()


# The end -----------------------------------------------------------------------------------------


def test_the_last_word_goes_last_and_nothing_after_it() -> None:
    woken: list[int] = []
    connection = Connection("c", Plain(), wake=lambda: woken.append(1))
    connection.push(b"before")
    connection.close(CloseCode.KICKED, "Out.", retry_in=3)
    connection.push(b"after")
    connection.send(Ping())
    assert told(connection) == ["before", "closing 4503"]
    assert (connection.close_code, connection.close_reason) == (CloseCode.KICKED, "Out.")
    assert woken == [1, 1]


def test_what_is_held_goes_before_the_last_word() -> None:
    connection = made()
    connection.hold()
    connection.push(b"held")
    connection.close(CloseCode.KICKED, "Out.")
    assert told(connection) == ["held", "closing 4503"]
    connection.release()
    assert told(connection) == []


def test_what_a_group_is_told_does_not_go_without_the_answer_before_it() -> None:
    connection = made()
    connection.hold()
    connection.push(b"of the room", "lobby", 7)
    connection.push(b"mine")
    connection.close(CloseCode.SERVER_RESTART, "Again.")
    assert told(connection) == ["mine", "closing 4000"]
    assert connection.waiting == 0


def test_the_first_close_counts() -> None:
    connection = made()
    connection.close(CloseCode.KICKED, "Out.")
    connection.close(CloseCode.BANNED, "For good.")
    assert (connection.close_code, connection.close_reason) == (CloseCode.KICKED, "Out.")
    assert told(connection) == ["closing 4503"]


def test_a_close_may_discard_what_is_queued() -> None:
    connection = made()
    connection.push(b"before")
    connection.hold()
    connection.push(b"held")
    connection.close(CloseCode.SLOW_CONSUMER, "Too slow.", discard=True)
    assert told(connection) == ["closing 4001"]
    assert connection.waiting == 0


def test_it_shows_who_it_is() -> None:
    assert "not logged in" in repr(made())
