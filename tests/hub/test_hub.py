"""The fan-out: encoded once per protocol, no task per member, in order, nobody told twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from rooms.hub.connection import Connection
from rooms.hub.group import Delivery, Group
from rooms.hub.hub import DIGESTS_A_FLUSH, Hub
from rooms.hub.send_queue import SendQueueLimits
from rooms.hub.shared_frames import SharedFrames
from rooms.protocol.events import Joined, Left, RoomRemoved
from rooms.protocol.types import Position, User
from tests.hub.codecs import Digesting, Each, Lines, Plain, Shouting, Silent, connection, message, told


@pytest.fixture(autouse=True)
def counted_afresh() -> None:
    for protocol in (Plain, Shouting, Silent, Lines):
        protocol.encoded = 0


def at(seq: int) -> Position:
    return Position(epoch="e", seq=seq)


def joined(hub: Hub, count: int = 1, protocol: type[Plain] = Plain, group: str = "g") -> list[Connection]:
    members = [connection(protocol()) for _ in range(count)]
    for member in members:
        hub.group_add(group, member)
    return members


def test_every_member_is_told_and_nobody_else() -> None:
    hub = Hub()
    ann, bob = joined(hub, 2)
    (eve,) = joined(hub, group="other")
    hub.group_send("g", message("hi"))
    assert (told(ann), told(bob), told(eve)) == (["hi"], ["hi"], [])


def test_a_group_is_there_as_long_as_it_has_members() -> None:
    hub = Hub()
    ann, bob = joined(hub, 2)
    assert "g" in hub
    assert hub.groups() == ["g"]
    assert hub.members("g") == [ann, bob]
    assert hub.group_discard("g", ann) is False
    assert hub.group_discard("g", ann) is False
    assert hub.group_discard("g", bob) is True
    assert "g" not in hub
    assert hub.members("g") == []
    assert hub.group_discard("g", bob) is False


def test_nobody_hears_what_is_said_to_a_group_that_is_not_there() -> None:
    Hub().group_send("g", message("hi", 1))
    assert Plain.encoded == 0


def test_coming_in_twice_is_being_in_once() -> None:
    hub = Hub()
    (ann,) = joined(hub)
    hub.group_add("g", ann)
    hub.group_send("g", message("hi"))
    assert told(ann) == ["hi"]


def test_one_may_be_left_out() -> None:
    hub = Hub()
    ann, bob = joined(hub, 2)
    hub.group_send("g", message("hi"), exclude=ann)
    assert (told(ann), told(bob)) == ([], ["hi"])


def test_only_some_users_on_all_their_connections() -> None:
    hub = Hub()
    phone, desk, bob, nobody = (
        connection(user="ann"),
        connection(user="ann"),
        connection(user="bob"),
        connection(),
    )
    for each in (phone, desk, bob, nobody):
        hub.group_add("g", each)
    hub.group_send("g", message("psst"), only={"ann"})
    assert [told(each) for each in (phone, desk, bob, nobody)] == [["psst"], ["psst"], [], []]
    hub.group_send("g", message("psst"), only=set())
    assert [told(each) for each in (phone, desk, bob, nobody)] == [[], [], [], []]


class Walked(dict[Connection, str | None]):
    """Counts at how many somebody has looked."""

    seen = 0

    def __iter__(self) -> Iterator[Connection]:
        for each in super().__iter__():
            self.seen += 1
            yield each


def test_users_are_found_without_a_look_at_everybody() -> None:
    hub = Hub()
    crowd = [connection(user=f"user {number}") for number in range(100)]
    for each in crowd:
        hub.group_add("g", each)
    hub.group_send("g", message("first"), only={"user 50"})
    group = hub._groups["g"]
    group.members = walked = Walked(group.members)
    phone, gone = connection(user="user 50"), crowd[50]
    hub.group_add("g", phone)
    # Whoever is disconnected is nobody any more when they leave.
    gone.user = None
    hub.group_discard("g", gone)
    hub.group_discard("g", crowd[51])
    hub.group_send("g", message("psst"), only=["user 50", "user 51", "user 52", "user 52", "nobody"])
    assert walked.seen <= 1
    heard = {each: words for each in (*crowd, phone) if (words := told(each))}
    assert heard == {gone: ["first"], phone: ["psst"], crowd[52]: ["psst"]}


# EncodingCache once per protocol -----------------------------------------------------------------------


class EncodesForEach(Hub):
    """Broken: encodes for every member."""

    def _deliver(self, group: str, found: Group, delivery: Delivery) -> None:
        for member in found.members:
            frame = type(member.protocol).encode_broadcast(delivery.event, "")
            if frame is not None:
                member.push(frame, group, delivery.seq)


class SpawnsForEach(Hub):
    """Broken: a task per member."""

    def _deliver(self, group: str, found: Group, delivery: Delivery) -> None:
        async def deliver() -> None:
            super(SpawnsForEach, self)._deliver(group, found, delivery)

        self.task = asyncio.ensure_future(deliver())


def check_encodings(hub: Hub) -> None:
    plain, shouting, silent = joined(hub, 50), joined(hub, 50, Shouting), joined(hub, 50, Silent)
    hub.group_send("g", message("hi", None))
    assert {protocol.__name__: protocol.encoded for protocol in (Plain, Shouting, Silent, Lines)} == {
        "Plain": 1,
        "Shouting": 1,
        "Silent": 1,
        "Lines": 0,
    }
    assert Counter(word for each in (*plain, *shouting, *silent) for word in told(each)) == {
        "hi": 50,
        "HI": 50,
    }


def check_that_no_task_is_made(hub: Hub) -> None:
    members = joined(hub, 50)
    before = asyncio.all_tasks()
    hub.group_send("g", message("hi"))
    assert asyncio.all_tasks() == before
    assert all(told(each) == ["hi"] for each in members)


def test_an_event_is_encoded_once_for_each_protocol_present() -> None:
    check_encodings(Hub())
    with pytest.raises(AssertionError):
        check_encodings(EncodesForEach())


async def test_no_task_is_made() -> None:
    check_that_no_task_is_made(Hub())
    broken = SpawnsForEach()
    with pytest.raises(AssertionError):
        check_that_no_task_is_made(broken)
    await broken.task


def test_nothing_is_encoded_when_nobody_is_to_hear_it() -> None:
    hub = Hub()
    (ann,) = joined(hub)
    hub.group_send("g", message("hi"), exclude=ann)
    hub.group_send("g", message("hi"), only={"bob"})
    assert Plain.encoded == 0


# Numbered events ---------------------------------------------------------------------------------


def started(*, gaps: list[str] | None = None, position: int = 0) -> tuple[Hub, Connection]:
    hub = Hub(gaps.append if gaps is not None else lambda group: None)
    (ann,) = joined(hub)
    hub.start("g", at(position))
    return hub, ann


def test_numbered_events_are_told_once_and_in_order() -> None:
    gaps: list[str] = []
    hub, ann = started(gaps=gaps)
    for seq in (1, 3, 2, 3, 1, 4):
        hub.group_send("g", message(str(seq), seq))
    assert told(ann) == ["1", "2", "3", "4"]
    assert gaps == ["g"]
    assert (hub.position("g"), hub.missing_after("g")) == (4, None)


def test_a_gap_is_reported_and_can_be_passed_over() -> None:
    gaps: list[str] = []
    hub, ann = started(gaps=gaps)
    hub.group_send("g", message("3", 3))
    assert (told(ann), gaps, hub.missing_after("g"), hub.earliest("g")) == ([], ["g"], 0, 3)
    hub.skip_gap("g")
    assert (told(ann), hub.missing_after("g"), hub.position("g"), hub.earliest("g")) == (["3"], None, 3, None)


def test_who_is_behind() -> None:
    hub = Hub()
    ann, bob, eve = joined(hub, 3)
    hub.start("g", at(2))
    hub.settle("g", bob, 5)
    hub.settle("g", eve, 7)
    assert [hub.behind("g", number) for number in (2, 3, 5, 6, 8)] == [
        [],
        [ann],
        [ann],
        [ann, bob],
        [ann, bob, eve],
    ]
    assert hub.behind("another", 3) == []


def test_what_the_history_lost_is_skipped() -> None:
    hub, ann = started()
    hub.group_send("g", message("5", 5))
    hub.skip("g", 3)
    assert (told(ann), hub.missing_after("g")) == ([], 3)
    hub.group_send("g", message("4", 4))
    assert told(ann) == ["4", "5"]


def test_before_the_start_numbered_events_wait_and_others_do_not() -> None:
    gaps: list[str] = []
    hub = Hub(gaps.append)
    (ann,) = joined(hub)
    hub.group_send("g", message("6", 6))
    hub.group_send("g", RoomRemoved(room="x"))
    assert (told(ann), gaps, hub.position("g")) == (["room_removed"], [], None)
    hub.start("g", at(5))
    assert told(ann) == ["6"]
    hub.start("g", at(9))
    assert hub.position("g") == 6


def test_a_kept_event_keeps_to_whom_it_is_told() -> None:
    hub = Hub()
    ann, bob = joined(hub, 2)
    hub.start("g", at(0))
    hub.group_send("g", message("2", 2), exclude=ann)
    hub.group_send("g", message("1", 1))
    assert (told(ann), told(bob)) == (["1"], ["1", "2"])


def test_groups_that_are_not_there_have_no_place() -> None:
    hub = Hub()
    hub.start("g", at(3))
    hub.skip("g", 3)
    hub.skip_gap("g")
    assert (hub.position("g"), hub.missing_after("g")) == (None, None)


def test_a_group_that_ended_begins_anew() -> None:
    hub, ann = started(position=7)
    hub.group_discard("g", ann)
    hub.group_add("g", ann)
    assert hub.position("g") is None


# One who comes in --------------------------------------------------------------------------------


def test_one_who_was_told_more_than_the_group_is_not_told_again() -> None:
    hub, ann = started()
    bob = connection()
    bob.hold()
    hub.group_add("g", bob)
    # The answer to the join holds 1 and 2, which the group has yet to be told.
    hub.settle("g", bob, 2)
    for seq in (1, 2, 3):
        hub.group_send("g", message(str(seq), seq))
    assert isinstance(ann.hears, SharedFrames)
    assert (told(ann), told(bob)) == (["1", "2", "3"], ["3"])
    hub.group_send("g", message("4", 4))
    assert told(bob) == ["4"]


def test_what_was_held_follows_the_answer_without_what_the_answer_told() -> None:
    hub, ann = started()
    bob = connection()
    bob.hold()
    hub.group_add("g", bob)
    for seq in (1, 2, 3):
        hub.group_send("g", message(str(seq), seq))
    assert told(bob) == []
    hub.settle("g", bob, 2)
    assert told(bob) == ["3"]
    assert told(ann) == ["1", "2", "3"]


def test_what_was_held_of_other_rooms_is_not_left_out() -> None:
    hub = Hub()
    ann = connection()
    for group in ("g", "other"):
        hub.group_add(group, ann)
        hub.start(group, at(0))
    ann.hold()
    hub.group_send("other", message("elsewhere", 1))
    hub.group_send("g", message("here", 1))
    hub.settle("g", ann, 5)
    assert told(ann) == ["elsewhere"]


def test_one_who_left_meanwhile_is_not_settled() -> None:
    hub, _ = started()
    bob = connection()
    bob.hold()
    hub.settle("g", bob, 5)
    hub.settle("nowhere", bob, 5)
    hub.group_add("g", bob)
    hub.group_send("g", message("1", 1))
    assert told(bob) == ["1"]


def test_leaving_forgets_what_the_answer_told() -> None:
    hub, _ = started()
    bob = connection()
    hub.group_add("g", bob)
    hub.settle("g", bob, 5)
    hub.group_discard("g", bob)
    hub.group_add("g", bob)
    hub.group_send("g", message("1", 1))
    assert told(bob) == ["1"]


# Volatile ----------------------------------------------------------------------------------------


def test_volatile_events_are_dropped_for_the_slow_alone_and_counted() -> None:
    hub = Hub()
    (ann,) = joined(hub)
    bob = Connection("b", Plain(), limits=SendQueueLimits(frames=2))
    hub.group_add("g", bob)
    bob.writing_since = 1.0
    for word in ("one", "two", "three"):
        hub.group_send("g", message(word), volatile=True)
    assert told(ann) == ["one", "two", "three"]
    assert told(bob) == ["one", "two"]
    assert hub.dropped == {"volatile": 1}
    hub.group_send("g", message("four"), volatile=True)
    assert told(bob) == ["four"]


def test_what_is_not_volatile_is_never_dropped() -> None:
    hub = Hub()
    bob = Connection("b", Plain(), limits=SendQueueLimits(frames=1))
    hub.group_add("g", bob)
    for word in ("one", "two", "three"):
        hub.group_send("g", message(word))
    assert told(bob) == ["one", "two", "three"]
    assert not hub.dropped


# Large groups ------------------------------------------------------------------------------------


def came(name: str) -> Joined:
    return Joined(room="lobby", user=User(name=name, id=name, guest=True))


def went(name: str) -> Left:
    return Left(room="lobby", user=User(name=name, id=name, guest=True), reason="left")


def crowded(size: int, *members: Connection, large: int = 2) -> tuple[Hub, list[str]]:
    """A hub with a group of so many users, these connections in it, and the calls that it makes."""
    calls: list[str] = []
    hub = Hub(on_crowd=calls.append, large=large)
    for member in members:
        hub.group_add("g", member)
        hub.listed("g", member, (), size, complete=False)
    return hub, calls


def tell(hub: Hub, count: int = 9) -> None:
    until = hub.changed("g")
    assert until is not None
    hub.tell_changes("g", until, count)


def test_a_large_group_is_told_together_who_came_and_went() -> None:
    ann, bob = connection(Digesting()), connection(Digesting())
    hub, calls = crowded(3, ann, bob)
    for event in (came("a"), went("b"), came("c")):
        hub.group_send("g", event)
    assert (told(ann), calls, hub.changed("g")) == ([], ["g"], 3)
    Digesting.encoded = 0
    tell(hub, count=4)
    # Together, as everything that is the same for all.
    assert ann.hears is bob.hears
    assert isinstance(ann.hears, SharedFrames)
    assert told(ann) == told(bob) == ["4 +a +c -b"]
    assert (Digesting.encoded, hub.changed("g"), hub.size("g")) == (1, None, 4)


def test_a_group_is_large_above_the_limit() -> None:
    ann = connection(Digesting())
    hub, calls = crowded(1, ann)
    hub.group_send("g", came("a"))
    assert (told(ann), calls) == (["joined"], [])
    hub.group_send("g", came("b"))
    assert (told(ann), calls) == ([], ["g"])
    # Small again, but what waits goes first.
    hub.group_send("g", went("b"))
    hub.group_send("g", went("c"))
    assert told(ann) == []
    tell(hub, count=1)
    hub.group_send("g", went("a"))
    assert (told(ann), calls) == (["1 -b -c", "left"], ["g"])


def test_where_a_protocol_wants_each_it_is_told_each_at_once_and_no_digest() -> None:
    ann, bob, eve = connection(Each()), connection(Digesting()), connection(Plain())
    hub, _ = crowded(3, ann, bob, eve)
    Plain.encoded = 0
    hub.group_send("g", came("a"))
    hub.group_send("g", went("b"))
    assert (told(ann), told(bob)) == (["joined", "left"], [])
    tell(hub)
    assert (told(ann), told(bob), told(eve)) == ([], ["9 +a -b"], [])
    # In a large group those who hear nothing of it are not even looked at.
    assert Plain.encoded == 0


def test_one_who_has_no_list_yet_is_told_each_and_then_what_the_list_does_not_say() -> None:
    ann, bob = connection(Digesting()), connection(Digesting())
    hub, _ = crowded(3, ann)
    hub.group_send("g", came("a"))
    bob.hold()
    hub.group_add("g", bob)
    hub.group_send("g", came("bob"), exclude=bob)
    hub.group_send("g", went("b"))
    hub.group_send("g", came("c"))
    tell(hub, count=5)
    hub.group_send("g", came("d"))
    hub.listed("g", bob, {"a", "bob", "c"}, 5, complete=True)
    hub.group_send("g", went("a"))
    bob.release()
    assert (told(ann), told(bob)) == (["5 +a +bob +c -b"], ["joined"])
    tell(hub, count=6)
    assert (told(ann), told(bob)) == (["6 +d -a"], ["6 -a"])


def test_of_digests_that_differ_few_wait_at_once() -> None:
    members = [connection(Digesting()) for _ in range(3 * DIGESTS_A_FLUSH)]
    hub, _ = crowded(3, members[0])
    for number, member in enumerate(members[1:]):
        hub.group_send("g", came(str(number)))
        hub.group_add("g", member)
        hub.listed("g", member, (), 9, complete=False)
    hub.group_send("g", went("a"))
    heard: list[list[str]] = []

    def flush() -> None:
        heard.append([text for member in members[1:] for text in told(member)])

    hub.tell_changes("g", len(members), 9, flush)
    flush()
    assert all(len(each) <= DIGESTS_A_FLUSH for each in heard)
    told_of = [text.split().index("-a") for each in heard for text in each]
    assert told_of == [len(members) - number for number in range(1, len(members))]


def test_one_who_left_is_told_nothing_more() -> None:
    ann, bob = connection(Digesting()), connection(Digesting())
    hub, _ = crowded(3, ann, bob)
    hub.group_send("g", came("a"))
    hub.group_discard("g", bob)
    tell(hub)
    assert (told(ann), told(bob)) == (["9 +a"], [])
    hub.group_send("g", came("b"))
    hub.group_discard("g", ann)
    assert hub.changed("g") is None
    hub.tell_changes("g", 2, 9)
    hub.listed("g", ann, (), 9, complete=True)
    assert (told(ann), hub.size("g")) == ([], 0)
