"""A room: numbered messages once and in order, joins of clients, joins and leaves as diffs."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import rooms.hub
from rooms.hub.connection import Connection
from rooms.hub.room import DIFFS_PER_FLUSH, Room
from rooms.hub.shared_frames import SharedFrames
from rooms.protocol.events import RoomRemoved
from tests.hub.codecs import Diffs, EachChange, Plain
from tests.hub.factories import (
    Listener,
    at,
    connection,
    make_hub,
    make_room,
    message,
    received,
    user_joined,
    user_left,
)


@pytest.fixture
def listener() -> Listener:
    return Listener()


def started_room(listener: Listener | None = None, *, position: int = 0) -> tuple[Room, Connection]:
    """A room whose history is at a position, and its only member."""
    ann = connection()
    room = make_room(None, ann, listener=listener)
    room.start(at(position))
    return room, ann


def test_key_and_name_come_from_the_config() -> None:
    room = make_room(id=7)
    assert (room.key, room.name) == ("room.7", "lobby")


def test_the_extension_of_the_room_decides_before_that_of_the_application() -> None:
    room = make_room()
    assert room.runners == (room.runner, room.application.runner)


def test_a_room_is_in_use_while_it_has_members_or_a_join_is_under_way() -> None:
    room, ann = make_room(), connection()
    assert not room.in_use
    room.joining += 1
    assert room.in_use
    room.add(ann)
    room.joining -= 1
    assert room.in_use
    room.discard(ann)
    assert not room.in_use


def test_the_hub_imports_no_django() -> None:
    modules = [f"rooms.hub.{each.name}" for each in pkgutil.iter_modules(rooms.hub.__path__)]
    assert "rooms.hub.room" in modules
    probe = f"import sys, {', '.join(modules)}\nprint({{'django', 'channels'}} & set(sys.modules))"
    base = Path(rooms.hub.__path__[0]).parent.parent
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=base)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


# Numbered messages -------------------------------------------------------------------------------


def test_numbered_messages_are_sent_once_and_in_order(listener: Listener) -> None:
    room, ann = started_room(listener)
    for seq in (1, 3, 2, 3, 1, 4):
        room.broadcast(message(str(seq), seq))
    assert received(ann) == ["1", "2", "3", "4"]
    assert listener.gaps == [room]
    assert (room.position, room.gap_start) == (4, None)


def test_a_gap_is_reported_and_can_be_skipped(listener: Listener) -> None:
    room, ann = started_room(listener)
    room.broadcast(message("3", 3))
    assert (received(ann), listener.gaps, room.gap_start, room.earliest_pending) == ([], [room], 0, 3)
    room.advance_to(2)
    assert (received(ann), room.gap_start, room.position, room.earliest_pending) == (["3"], None, 3, None)
    assert listener.gaps == [room]


def test_a_gap_behind_the_skipped_messages_is_reported(listener: Listener) -> None:
    room, ann = started_room(listener)
    for seq in (3, 5):
        room.broadcast(message(str(seq), seq))
    listener.gaps.clear()
    room.advance_to(2)
    assert (received(ann), listener.gaps, room.gap_start, room.earliest_pending) == (["3"], [room], 3, 5)


def test_messages_that_the_history_lost_are_skipped() -> None:
    room, ann = started_room()
    room.broadcast(message("5", 5))
    room.advance_to(3)
    assert (received(ann), room.gap_start) == ([], 3)
    room.broadcast(message("4", 4))
    assert received(ann) == ["4", "5"]


def test_a_skipped_message_is_not_sent_when_it_arrives_late() -> None:
    room, ann = started_room()
    room.advance_to(2)
    room.broadcast(message("2", 2))
    room.broadcast(message("3", 3))
    assert received(ann) == ["3"]


def test_members_behind_a_number_are_those_whose_reply_did_not_cover_it() -> None:
    ann, bob, eve = connection(), connection(), connection()
    room = make_room(None, ann, bob, eve)
    room.start(at(2))
    room.mark_synced(bob, 5)
    room.mark_synced(eve, 7)
    assert [room.members_behind(number) for number in (2, 3, 5, 6, 8)] == [
        [],
        [ann],
        [ann],
        [ann, bob],
        [ann, bob, eve],
    ]
    assert make_room().members_behind(3) == []


def test_before_the_start_numbered_messages_wait_and_other_events_do_not(listener: Listener) -> None:
    ann = connection()
    room = make_room(None, ann, listener=listener)
    room.broadcast(message("6", 6))
    room.broadcast(message("unnumbered"))
    room.broadcast(RoomRemoved(room="x"))
    assert received(ann) == ["unnumbered", "room_removed"]
    assert (listener.gaps, room.position, room.gap_start) == ([], None, None)
    room.start(at(5))
    assert received(ann) == ["6"]
    room.start(at(9))
    assert room.position == 6


def test_a_start_reports_a_gap_behind_the_position(listener: Listener) -> None:
    ann = connection()
    room = make_room(None, ann, listener=listener)
    room.broadcast(message("7", 7))
    room.start(at(5))
    assert (received(ann), listener.gaps, room.gap_start) == ([], [room], 5)


def test_the_first_start_decides_about_the_epoch() -> None:
    room, _ = started_room(position=2)
    room.start(at(9, epoch="other"))
    assert (room.epoch, room.position) == ("e", 2)


def test_a_pending_message_keeps_its_recipients() -> None:
    ann, bob = connection(), connection()
    room = make_room(None, ann, bob)
    room.start(at(0))
    room.broadcast(message("2", 2), exclude=ann)
    room.broadcast(message("1", 1))
    assert (received(ann), received(bob)) == (["1"], ["1", "2"])


def test_a_pending_message_for_single_users_is_sent_to_these() -> None:
    ann, bob = connection(user="ann"), connection(user="bob")
    room = make_room(None, ann, bob)
    room.start(at(0))
    room.broadcast(message("2", 2), only={"ann"})
    room.broadcast(message("1", 1))
    assert (received(ann), received(bob)) == (["1", "2"], ["1"])


def test_a_room_without_members_has_no_position() -> None:
    room = make_room()
    room.start(at(3))
    room.advance_to(3)
    assert (room.position, room.epoch, room.gap_start, room.earliest_pending) == (None, None, None, None)


def test_a_room_forgets_its_position_with_the_last_member() -> None:
    room, ann = started_room(position=7)
    bob = connection()
    room.add(bob)
    room.broadcast(message("9", 9))
    assert room.discard(ann) is False
    assert (room.position, room.epoch, room.earliest_pending) == (7, "e", 9)
    assert room.discard(bob) is True
    assert (room.position, room.epoch, room.earliest_pending) == (None, None, None)
    room.add(ann)
    assert (room.position, room.epoch) == (None, None)
    room.start(at(2, epoch="f"))
    room.broadcast(message("3", 3))
    assert (room.epoch, received(ann)) == ("f", ["3"])


def test_a_reset_forgets_position_epoch_and_what_replies_covered(listener: Listener) -> None:
    room, ann = started_room(listener, position=7)
    room.mark_synced(ann, 9)
    room.broadcast(message("20", 20))
    room.reset_position()
    assert (room.position, room.epoch, room.gap_start, room.earliest_pending) == (None, None, None, None)
    room.start(at(0, epoch="f"))
    room.broadcast(message("1", 1))
    assert (room.epoch, received(ann), room.gap_start) == ("f", ["1"], None)


# Joins -------------------------------------------------------------------------------------------


def test_a_member_receives_no_message_that_its_join_reply_covered() -> None:
    room, ann = started_room()
    bob = connection()
    bob.cork()
    room.add(bob)
    # The join reply contains 1 and 2, which the room has not sent yet.
    room.mark_synced(bob, 2)
    for seq in (1, 2, 3):
        room.broadcast(message(str(seq), seq))
    assert isinstance(ann.shared, SharedFrames)
    assert (received(ann), received(bob)) == (["1", "2", "3"], ["3"])
    room.broadcast(message("4", 4))
    assert received(bob) == ["4"]


def test_corked_messages_follow_the_reply_except_those_it_covered() -> None:
    room, ann = started_room()
    bob = connection()
    bob.cork()
    room.add(bob)
    for seq in (1, 2, 3):
        room.broadcast(message(str(seq), seq))
    assert received(bob) == []
    room.mark_synced(bob, 2)
    assert received(bob) == ["3"]
    assert received(ann) == ["1", "2", "3"]


def test_corked_messages_of_other_rooms_are_sent() -> None:
    hub, ann = make_hub(), connection()
    room, other = make_room(hub, ann, id=1), make_room(hub, ann, id=2)
    for each in (room, other):
        each.start(at(0))
    ann.cork()
    other.broadcast(message("elsewhere", 1))
    room.broadcast(message("here", 1))
    room.mark_synced(ann, 5)
    assert received(ann) == ["elsewhere"]


def test_a_connection_that_left_before_its_reply_is_only_uncorked() -> None:
    room, _ = started_room()
    bob = connection()
    bob.cork()
    room.mark_synced(bob, 5)
    make_room(id=2).mark_synced(bob, 5)
    room.add(bob)
    room.broadcast(message("1", 1))
    assert received(bob) == ["1"]


def test_a_member_that_leaves_is_not_ahead_when_it_returns() -> None:
    room, _ = started_room()
    bob = connection()
    room.add(bob)
    room.mark_synced(bob, 5)
    room.discard(bob)
    room.add(bob)
    room.broadcast(message("1", 1))
    assert received(bob) == ["1"]


def test_only_members_that_are_ahead_of_the_room_are_kept_apart() -> None:
    room, ann = started_room(position=3)
    room.mark_synced(ann, 3)
    assert room._ahead == {}
    room.mark_synced(ann, 5)
    for seq in (4, 5):
        room.broadcast(message(str(seq), seq))
    assert (received(ann), room._ahead) == ([], {})


# Presence diffs ----------------------------------------------------------------------------------


def large_room(size: int, *members: Connection, threshold: int = 2) -> tuple[Room, Listener]:
    """A room with ``size`` users and these members, which have received the member list."""
    listener = Listener()
    room = make_room(None, listener=listener, diff_threshold=threshold)
    for member in members:
        room.add(member)
        room.mark_members_sent(member, (), size, complete=False)
    return room, listener


def flush_diff(room: Room, count: int = 9) -> None:
    until = room.pending_diff
    assert until is not None
    room.flush_diff(until, count)


def test_a_large_room_sends_joins_and_leaves_as_one_diff() -> None:
    ann, bob = connection(Diffs()), connection(Diffs())
    room, listener = large_room(3, ann, bob)
    for event in (user_joined("a"), user_left("b"), user_joined("c")):
        room.broadcast(event)
    assert (received(ann), listener.presence_changes, room.pending_diff) == ([], [room], 3)
    Diffs.encoded = 0
    flush_diff(room, count=4)
    # Shared, as all bytes that are the same for several members.
    assert ann.shared is bob.shared
    assert isinstance(ann.shared, SharedFrames)
    assert received(ann) == received(bob) == ["4 +a +c -b"]
    assert (Diffs.encoded, room.pending_diff, room.size) == (1, None, 4)


def test_a_room_is_large_above_the_threshold() -> None:
    ann = connection(Diffs())
    room, listener = large_room(1, ann)
    room.broadcast(user_joined("a"))
    assert (received(ann), listener.presence_changes) == (["joined"], [])
    room.broadcast(user_joined("b"))
    assert (received(ann), listener.presence_changes) == ([], [room])
    # Small again, but pending changes go first.
    room.broadcast(user_left("b"))
    room.broadcast(user_left("c"))
    assert received(ann) == []
    flush_diff(room, count=1)
    room.broadcast(user_left("a"))
    assert (received(ann), listener.presence_changes) == (["1 -b -c", "left"], [room])


def test_a_protocol_without_diffs_receives_each_change_at_once_and_no_diff() -> None:
    ann, bob, eve = connection(EachChange()), connection(Diffs()), connection(Plain())
    room, _ = large_room(3, ann, bob, eve)
    Plain.encoded = 0
    room.broadcast(user_joined("a"))
    room.broadcast(user_left("b"))
    assert (received(ann), received(bob)) == (["joined", "left"], [])
    flush_diff(room)
    assert (received(ann), received(bob), received(eve)) == ([], ["9 +a -b"], [])
    # In a large room nothing is encoded for protocols without presence events.
    assert Plain.encoded == 0


def test_a_member_without_list_receives_each_change_and_then_what_its_list_does_not_cover() -> None:
    ann, bob = connection(Diffs()), connection(Diffs())
    room, _ = large_room(3, ann)
    room.broadcast(user_joined("a"))
    bob.cork()
    room.add(bob)
    room.broadcast(user_joined("bob"), exclude=bob)
    room.broadcast(user_left("b"))
    room.broadcast(user_joined("c"))
    flush_diff(room, count=5)
    room.broadcast(user_joined("d"))
    room.mark_members_sent(bob, {"a", "bob", "c"}, 5, complete=True)
    room.broadcast(user_left("a"))
    bob.uncork()
    assert (received(ann), received(bob)) == (["5 +a +bob +c -b"], ["joined"])
    flush_diff(room, count=6)
    assert (received(ann), received(bob)) == (["6 +d -a"], ["6 -a"])


def test_the_queues_are_flushed_after_every_few_diffs_for_single_members() -> None:
    members = [connection(Diffs()) for _ in range(3 * DIFFS_PER_FLUSH)]
    room, _ = large_room(3, members[0])
    for number, member in enumerate(members[1:]):
        room.broadcast(user_joined(str(number)))
        room.add(member)
        room.mark_members_sent(member, (), 9, complete=False)
    room.broadcast(user_left("a"))
    flushed: list[list[str]] = []

    def flush() -> None:
        flushed.append([text for member in members[1:] for text in received(member)])

    room.flush_diff(len(members), 9, flush)
    flush()
    assert all(len(each) <= DIFFS_PER_FLUSH for each in flushed)
    lengths = [text.split().index("-a") for each in flushed for text in each]
    assert lengths == [len(members) - number for number in range(1, len(members))]


def test_a_member_that_left_receives_no_diff() -> None:
    ann, bob = connection(Diffs()), connection(Diffs())
    room, _ = large_room(3, ann, bob)
    room.broadcast(user_joined("a"))
    room.discard(bob)
    flush_diff(room)
    assert (received(ann), received(bob)) == (["9 +a"], [])


def test_a_member_that_left_with_a_list_of_its_own_receives_no_diff() -> None:
    ann, bob = connection(Diffs()), connection(Diffs())
    room, _ = large_room(3, ann)
    room.broadcast(user_joined("a"))
    room.add(bob)
    room.mark_members_sent(bob, (), 4, complete=False)
    room.broadcast(user_joined("b"))
    room.discard(bob)
    flush_diff(room)
    assert (received(ann), received(bob)) == (["9 +a +b"], [])


def test_a_member_that_left_receives_no_single_changes() -> None:
    ann, bob, eve = connection(Diffs()), connection(EachChange()), connection(Diffs())
    room, _ = large_room(3, ann, bob)
    room.add(eve)
    for member in (bob, eve):
        room.discard(member)
    room.broadcast(user_joined("a"))
    assert (received(bob), received(eve)) == ([], [])


@pytest.mark.parametrize("size", [1, 3])
def test_a_member_does_not_receive_its_own_join(size: int) -> None:
    ann, bob = connection(EachChange()), connection(EachChange())
    room, _ = large_room(size, ann, bob)
    room.broadcast(user_joined("bob"), exclude=bob)
    assert (received(ann), received(bob)) == (["joined"], [])


def test_a_room_forgets_pending_changes_and_its_size_with_the_last_member() -> None:
    ann = connection(Diffs())
    room, listener = large_room(3, ann)
    room.broadcast(user_joined("b"))
    room.discard(ann)
    assert room.pending_diff is None
    room.flush_diff(2, 9)
    room.mark_members_sent(ann, (), 9, complete=True)
    assert (received(ann), room.size) == ([], 0)
    # It is small again, and the next pending change is reported.
    room.add(ann)
    room.broadcast(user_joined("c"))
    assert (received(ann), room.pending_diff) == (["joined"], None)
    room.mark_members_sent(ann, (), 9, complete=True)
    listener.presence_changes.clear()
    room.broadcast(user_joined("d"))
    assert (received(ann), room.pending_diff, listener.presence_changes) == ([], 1, [room])


def test_a_join_in_a_room_without_members_is_not_counted() -> None:
    room, listener = large_room(3, threshold=0)
    room.broadcast(user_joined("a"))
    assert (room.size, room.pending_diff, listener.presence_changes) == (0, None, [])
