"""PresenceEvents and goings of a large room: of each user the last, each connection what it does not know."""

from __future__ import annotations

import msgspec

from rooms.hub.connection import Connection
from rooms.hub.presence_diff import MOST_NAMED, PresenceDiff
from rooms.protocol.events import Joined, Left, Members
from rooms.protocol.types import User
from tests.hub.codecs import connection, names_of


def came(name: str) -> Joined:
    return Joined(room="lobby", user=User(name=name, id=name, guest=True))


def went(name: str) -> Left:
    return Left(room="lobby", user=User(name=name, id=name, guest=True), reason="left")


def crowd(*events: Joined | Left) -> PresenceDiff:
    made = PresenceDiff()
    for event in events:
        made.note(event)
    return made


def names(digest: Members | None) -> tuple[str, str]:
    """Who joined and who left, a letter each."""
    assert digest is not None
    return "".join(names_of(digest.joined)), "".join(names_of(digest.left))


def told(crowd: PresenceDiff, count: int = 9) -> tuple[Members | None, dict[Connection, Members | None]]:
    """All that waits is told."""
    assert crowd.until is not None
    return taken(crowd, crowd.until, count)


def taken(
    crowd: PresenceDiff, until: int, count: int
) -> tuple[Members | None, dict[Connection, Members | None]]:
    digests, known = crowd.take(until, count)
    return digests.after(0), {each: digests.after(number) for each, number in known.items()}


def test_a_digest_says_who_came_and_went_and_how_many_there_are() -> None:
    digest, others = told(crowd(came("a"), came("b"), went("c")), count=7)
    assert digest is not None
    assert (digest.room, digest.count, names(digest)) == ("lobby", 7, ("ab", "c"))
    assert msgspec.json.decode(digest.joined)[0] == {"name": "a", "id": "a", "guest": True}
    assert others == {}


def test_of_each_user_the_last_change_is_told_in_the_order_of_these() -> None:
    digest, _ = told(crowd(came("a"), went("b"), came("c"), went("a"), came("b")))
    assert names(digest) == ("cb", "a")


def test_what_was_told_waits_no_more() -> None:
    gathered = crowd(came("a"))
    assert gathered.until == 1
    told(gathered)
    assert gathered.until is None
    gathered.note(came("b"))
    assert names(told(gathered)[0]) == ("b", "")


def test_what_came_while_the_users_were_counted_waits_for_the_next_count() -> None:
    gathered = crowd(came("a"), came("b"))
    until = gathered.until
    assert until is not None
    gathered.note(came("c"))
    gathered.note(went("a"))
    assert names(taken(gathered, until, 9)[0]) == ("b", "")
    assert names(told(gathered)[0]) == ("c", "a")


def test_one_with_a_newer_list_is_told_what_came_after_it() -> None:
    ann, bob, eve = connection(), connection(), connection()
    gathered = crowd(came("a"))
    gathered.listed(ann)
    gathered.note(went("b"))
    gathered.listed(bob)
    gathered.listed(eve)
    gathered.forget(eve)
    digest, others = told(gathered)
    assert names(digest) == ("a", "b")
    assert names(others[ann]) == ("", "b")
    assert others[bob] is None
    assert eve not in others
    gathered.note(came("c"))
    assert told(gathered)[1] == {}


def test_one_whose_list_was_made_during_the_count_is_not_told_later_what_it_holds() -> None:
    ann = connection()
    gathered = crowd(came("a"))
    until = gathered.until
    assert until is not None
    gathered.note(came("b"))
    gathered.listed(ann)
    gathered.note(came("c"))
    assert taken(gathered, until, 9)[1] == {ann: None}
    digest, others = told(gathered)
    assert (names(digest), names(others[ann])) == (("bc", ""), ("c", ""))


def test_a_list_made_when_nothing_waits_needs_no_note() -> None:
    ann, gathered = connection(), PresenceDiff()
    gathered.listed(ann)
    gathered.note(came("a"))
    assert told(gathered)[1] == {}


def test_a_digest_names_no_more_than_it_may() -> None:
    names = [str(number) for number in range(MOST_NAMED + 1)]
    digest, _ = told(crowd(*map(came, names)), count=MOST_NAMED + 1)
    assert digest is not None
    assert (len(names_of(digest.joined)), digest.count) == (MOST_NAMED, MOST_NAMED + 1)
    digest, _ = told(crowd(*map(went, names)), count=0)
    assert digest is not None
    assert (len(names_of(digest.left)), digest.count) == (MOST_NAMED, 0)


def test_it_counts_as_far_as_it_hears() -> None:
    gathered = PresenceDiff()
    for event, size in ((went("a"), 0), (came("a"), 1), (came("b"), 2), (went("a"), 1)):
        gathered.count(event)
        assert gathered.size == size
    gathered.note(came("b"))
    told(gathered, count=30)
    assert gathered.size == 30
