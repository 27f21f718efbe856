"""Presence diffs: the last change of each user, and for each connection the changes it does not know."""

from __future__ import annotations

import msgspec

from rooms.hub.connection import Connection
from rooms.hub.presence_diff import MAX_NAMED, PresenceDiff
from rooms.protocol.events import Joined, Left, Members
from tests.hub.codecs import names_of
from tests.hub.factories import connection, user_joined, user_left


def diff_of(*events: Joined | Left) -> PresenceDiff:
    made = PresenceDiff()
    for event in events:
        made.note(event)
    return made


def names(event: Members | None) -> tuple[str, str]:
    """The users that joined and those that left, a letter each."""
    assert event is not None
    return "".join(names_of(event.joined)), "".join(names_of(event.left))


def take_all(diff: PresenceDiff, count: int = 9) -> tuple[Members | None, dict[Connection, Members | None]]:
    """Take all pending changes."""
    assert diff.until is not None
    return take(diff, diff.until, count)


def take(
    diff: PresenceDiff, until: int, count: int
) -> tuple[Members | None, dict[Connection, Members | None]]:
    """The diff for all members, and those of connections that know a part of it."""
    diffs, known = diff.take(until, count)
    return diffs.after(0), {each: diffs.after(number) for each, number in known.items()}


def test_a_diff_contains_joins_leaves_and_the_number_of_users() -> None:
    event, others = take_all(diff_of(user_joined("a"), user_joined("b"), user_left("c")), count=7)
    assert event is not None
    assert (event.room, event.count, names(event)) == ("lobby", 7, ("ab", "c"))
    assert msgspec.json.decode(event.joined)[0] == {"name": "a", "id": "a", "guest": True}
    assert others == {}


def test_the_last_change_of_each_user_counts_in_the_order_of_these() -> None:
    event, _ = take_all(
        diff_of(user_joined("a"), user_left("b"), user_joined("c"), user_left("a"), user_joined("b"))
    )
    assert names(event) == ("cb", "a")


def test_changes_that_were_taken_are_not_pending() -> None:
    diff = diff_of(user_joined("a"))
    assert diff.until == 1
    take_all(diff)
    assert diff.until is None
    diff.note(user_joined("b"))
    assert names(take_all(diff)[0]) == ("b", "")


def test_changes_during_the_count_are_part_of_the_next_diff() -> None:
    diff = diff_of(user_joined("a"), user_joined("b"))
    until = diff.until
    assert until is not None
    diff.note(user_joined("c"))
    diff.note(user_left("a"))
    assert names(take(diff, until, 9)[0]) == ("b", "")
    assert names(take_all(diff)[0]) == ("c", "a")


def test_a_connection_with_a_newer_list_receives_the_changes_after_it() -> None:
    ann, bob, eve = connection(), connection(), connection()
    diff = diff_of(user_joined("a"))
    diff.mark_listed(ann)
    diff.note(user_left("b"))
    diff.mark_listed(bob)
    diff.mark_listed(eve)
    diff.forget(eve)
    event, others = take_all(diff)
    assert names(event) == ("a", "b")
    assert names(others[ann]) == ("", "b")
    assert others[bob] is None
    assert eve not in others
    diff.note(user_joined("c"))
    assert take_all(diff)[1] == {}


def test_a_list_made_during_the_count_covers_changes_of_the_next_diff() -> None:
    ann = connection()
    diff = diff_of(user_joined("a"))
    until = diff.until
    assert until is not None
    diff.note(user_joined("b"))
    diff.mark_listed(ann)
    diff.note(user_joined("c"))
    assert take(diff, until, 9)[1] == {ann: None}
    event, others = take_all(diff)
    assert (names(event), names(others[ann])) == (("bc", ""), ("c", ""))


def test_a_list_made_without_pending_changes_is_not_noted() -> None:
    ann, diff = connection(), PresenceDiff()
    diff.mark_listed(ann)
    diff.note(user_joined("a"))
    assert take_all(diff)[1] == {}


def test_a_diff_names_at_most_max_named_users() -> None:
    names = [str(number) for number in range(MAX_NAMED + 1)]
    event, _ = take_all(diff_of(*map(user_joined, names)), count=MAX_NAMED + 1)
    assert event is not None
    assert (len(names_of(event.joined)), event.count) == (MAX_NAMED, MAX_NAMED + 1)
    event, _ = take_all(diff_of(*map(user_left, names)), count=0)
    assert event is not None
    assert (len(names_of(event.left)), event.count) == (MAX_NAMED, 0)


def test_the_size_follows_joins_leaves_and_the_last_count() -> None:
    diff = PresenceDiff()
    for event, size in (
        (user_left("a"), 0),
        (user_joined("a"), 1),
        (user_joined("b"), 2),
        (user_left("a"), 1),
    ):
        diff.count(event)
        assert diff.size == size
    diff.note(user_joined("b"))
    take_all(diff, count=30)
    assert diff.size == 30
