"""Broadcasts: encoded once per protocol, no task per member, every member receives an event once.

A room is a group, so these tests run with both.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from rooms.hub.connection import Connection
from rooms.hub.group import _CLOSED_WINDOW, Delivery, Group, Hub
from rooms.hub.send_queue import SendQueueLimits
from tests.hub.codecs import Lines, Plain, Silent, Uppercase
from tests.hub.factories import add_members, connection, make_hub, make_room, message, received


@pytest.fixture
def hub() -> Hub:
    return make_hub()


@pytest.fixture(params=["group", "room"])
def group(request: pytest.FixtureRequest, hub: Hub) -> Group:
    return Group(hub, "g") if request.param == "group" else make_room(hub)


def test_every_member_receives_an_event_and_no_other_connection(hub: Hub, group: Group) -> None:
    ann, bob = add_members(group, 2)
    (eve,) = add_members(Group(hub, "other"), 1)
    group.broadcast(message("hi"))
    assert (received(ann), received(bob), received(eve)) == (["hi"], ["hi"], [])


def test_discard_returns_whether_the_last_member_left(group: Group) -> None:
    ann, bob = add_members(group, 2)
    assert list(group.members) == [ann, bob]
    assert group.discard(ann) is False
    assert group.discard(ann) is False
    assert list(group.members) == [bob]
    assert group.discard(bob) is True
    assert list(group.members) == []
    assert group.discard(bob) is False


def test_a_broadcast_to_an_empty_group_encodes_nothing_and_is_not_kept(group: Group) -> None:
    group.broadcast(message("hi", 1))
    group.broadcast(message("hi"))
    (ann,) = add_members(group, 1)
    assert (Plain.encoded, received(ann)) == (0, [])


def test_a_connection_that_is_added_twice_receives_an_event_once(group: Group) -> None:
    (ann,) = add_members(group, 1)
    group.add(ann)
    group.broadcast(message("hi"))
    assert received(ann) == ["hi"]


def test_one_member_can_be_excluded(group: Group) -> None:
    ann, bob = add_members(group, 2)
    group.broadcast(message("hi"), exclude=ann)
    assert (received(ann), received(bob)) == ([], ["hi"])


def test_an_event_can_be_sent_to_all_connections_of_some_users(group: Group) -> None:
    members = [connection(user="ann"), connection(user="ann"), connection(user="bob"), connection()]
    for member in members:
        group.add(member)
    group.broadcast(message("psst"), only={"ann"})
    assert [received(each) for each in members] == [["psst"], ["psst"], [], []]
    group.broadcast(message("psst"), only=set())
    assert [received(each) for each in members] == [[], [], [], []]


def test_an_excluded_connection_of_a_chosen_user_receives_nothing(group: Group) -> None:
    phone, desk = connection(user="ann"), connection(user="ann")
    for member in (phone, desk):
        group.add(member)
    group.broadcast(message("psst"), exclude=phone, only={"ann"})
    assert (received(phone), received(desk)) == ([], ["psst"])


class CountedMembers(dict[Connection, str | None]):
    """Counts how many members are iterated over."""

    seen = 0

    def __iter__(self) -> Iterator[Connection]:
        for each in super().__iter__():
            self.seen += 1
            yield each


def test_users_are_found_without_iterating_over_all_members(group: Group) -> None:
    members = [connection(user=f"user {number}") for number in range(100)]
    for each in members:
        group.add(each)
    group.broadcast(message("first"), only={"user 50"})
    group.members = counted = CountedMembers(group.members)
    phone, logged_out = connection(user="user 50"), members[50]
    group.add(phone)
    # The user of a disconnected client is gone before the client leaves its groups.
    logged_out.user = None
    group.discard(logged_out)
    group.discard(members[51])
    group.broadcast(message("psst"), only=["user 50", "user 51", "user 52", "user 52", "nobody"])
    assert counted.seen <= 1
    found = {each: events for each in (*members, phone) if (events := received(each))}
    assert found == {logged_out: ["first"], phone: ["psst"], members[52]: ["psst"]}


def test_a_group_that_was_empty_forgets_the_connections_of_users(group: Group) -> None:
    ann = connection(user="ann")
    group.add(ann)
    group.broadcast(message("one"), only={"ann"})
    group.discard(ann)
    bob = connection(user="bob")
    group.add(bob)
    group.broadcast(message("two"), only={"ann", "bob"})
    assert (received(ann), received(bob)) == (["one"], ["two"])


# Encoding and tasks ------------------------------------------------------------------------------


class EncodesPerMember(Group):
    """Broken: encodes for every member."""

    def _deliver(self, delivery: Delivery) -> None:
        for member in self.members:
            frame = type(member.protocol).encode_broadcast(delivery.event, "")
            if frame is not None:
                member.push(frame, self.key, delivery.seq)


class SpawnsTasks(Group):
    """Broken: delivers in a task."""

    task: asyncio.Task[None]

    def _deliver(self, delivery: Delivery) -> None:
        async def deliver() -> None:
            super(SpawnsTasks, self)._deliver(delivery)

        self.task = asyncio.ensure_future(deliver())


def check_encodings(group: Group) -> None:
    plain, uppercase, silent = (add_members(group, 50, each) for each in (Plain, Uppercase, Silent))
    group.broadcast(message("hi", None))
    assert {protocol.__name__: protocol.encoded for protocol in (Plain, Uppercase, Silent, Lines)} == {
        "Plain": 1,
        "Uppercase": 1,
        "Silent": 1,
        "Lines": 0,
    }
    assert Counter(event for each in (*plain, *uppercase, *silent) for event in received(each)) == {
        "hi": 50,
        "HI": 50,
    }


def check_no_task(group: Group) -> None:
    members = add_members(group, 50)
    before = asyncio.all_tasks()
    group.broadcast(message("hi"))
    assert asyncio.all_tasks() == before
    assert all(received(each) == ["hi"] for each in members)


def test_an_event_is_encoded_once_per_protocol_of_the_members(group: Group) -> None:
    check_encodings(group)


def test_the_check_of_encodings_finds_an_encoding_per_member(hub: Hub) -> None:
    with pytest.raises(AssertionError):
        check_encodings(EncodesPerMember(hub, "g"))


async def test_a_broadcast_creates_no_task(group: Group) -> None:
    check_no_task(group)


async def test_the_check_of_tasks_finds_a_task(hub: Hub) -> None:
    broken = SpawnsTasks(hub, "g")
    with pytest.raises(AssertionError):
        check_no_task(broken)
    await broken.task


def test_an_event_without_recipients_is_not_encoded(group: Group) -> None:
    (ann,) = add_members(group, 1)
    group.broadcast(message("hi"), exclude=ann)
    group.broadcast(message("hi"), only={"bob"})
    assert Plain.encoded == 0


# Volatile events ---------------------------------------------------------------------------------


def test_volatile_events_are_dropped_for_slow_members_only_and_counted(hub: Hub, group: Group) -> None:
    (ann,) = add_members(group, 1)
    bob = Connection("b", Plain(), limits=SendQueueLimits(frames=2))
    group.add(bob)
    bob.writing_since = 1.0
    for event in ("one", "two", "three"):
        group.broadcast(message(event), volatile=True)
    assert received(ann) == ["one", "two", "three"]
    assert received(bob) == ["one", "two"]
    assert hub.dropped == {"volatile": 1}
    group.broadcast(message("four"), volatile=True)
    assert received(bob) == ["four"]


def test_an_event_that_is_not_volatile_is_never_dropped(hub: Hub, group: Group) -> None:
    bob = Connection("b", Plain(), limits=SendQueueLimits(frames=1))
    group.add(bob)
    for event in ("one", "two", "three"):
        group.broadcast(message(event))
    assert received(bob) == ["one", "two", "three"]
    assert not hub.dropped


# Memory ------------------------------------------------------------------------------------------


def test_groups_that_send_nothing_share_a_window_and_no_members(hub: Hub, group: Group) -> None:
    other = Group(hub, "other")
    ann, bob = connection(), connection()
    group.add(ann)
    other.add(bob)
    assert group._window is other._window is _CLOSED_WINDOW
    group.broadcast(message("hi"))
    group.discard(ann)
    assert group._window is _CLOSED_WINDOW
    assert (_CLOSED_WINDOW.attached, _CLOSED_WINDOW.frames, _CLOSED_WINDOW.apart) == (0, {}, {})


def test_a_user_is_forgotten_with_the_last_connection(group: Group) -> None:
    ann, phone, desk = connection(user="ann"), connection(user="bob"), connection(user="bob")
    for member in (ann, phone, desk):
        group.add(member)
    assert group.connections_of(["bob"]) == [phone, desk]
    group.discard(phone)
    assert group._connections_of == {"ann": {ann: None}, "bob": {desk: None}}
    group.discard(desk)
    assert group._connections_of == {"ann": {ann: None}}
    group.discard(ann)
    assert group._connections_of is None


def test_repr_names_the_group(group: Group) -> None:
    assert repr(group) == f"<{type(group).__name__} {group.key}>"
