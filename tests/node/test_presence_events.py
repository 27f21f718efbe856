"""Joins and leaves are announced in the order of presence; in large rooms as one diff a second."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import pytest

from rooms.conf import load_protocol
from rooms.extensions import Extension
from rooms.extensions.contexts import JoinEvent, LeaveEvent
from rooms.models import Application, Room
from rooms.node import presence_events
from rooms.node.node import Node
from rooms.protocol.commands import Join, Leave, ListMembers, Login, Subscribe
from rooms.protocol.errors import NotMember, RoomClosed, Unavailable
from tests.node.clients import Client, Install, MakeNode, error_of, member_names, wait_for
from tests.node.peers import Peer, fields, roomer

SHARED = {"presence": {"BACKEND": "rooms.presence.database.DatabasePresence"}}
LARGE = 3
# The number of random runs with each presence backend; more are useful by hand.
SEEDS = int(os.environ.get("ROOMS_TEST_SEEDS", "7"))


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffs are sent when the test flushes them."""
    monkeypatch.setattr(presence_events, "DIFF_SECONDS", 3600)


@pytest.fixture
async def node(make_node: MakeNode) -> Node:
    """Return a node where a room with more than LARGE users is a large one."""
    return await make_node(presence_diff_threshold=LARGE)


class Held:
    """Work whose result is returned when it may ``go``."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.done, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        result = await self._work(*arguments, **options)
        self.done.set()
        await wait_for(self.go)
        return result


class Recorder(Extension):
    """Records joins and leaves."""

    happened: ClassVar[list[str]]

    async def on_join(self, event: JoinEvent) -> None:
        self.happened.append(f"+{event.user.name}")

    async def on_leave(self, event: LeaveEvent) -> None:
        self.happened.append(f"-{event.user.name}")


@pytest.fixture
def recorded(install_extension: Install, chat: Application) -> list[str]:
    """Return the joins and leaves that the extension of the lobby receives."""
    Recorder.happened = []
    Room.objects.create(application=chat, name="lobby", extension=install_extension(Recorder))
    return Recorder.happened


@pytest.fixture
async def pair(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, Node]:
    """Return two nodes without periodic tasks."""
    monkeypatch.setattr(presence_events, "VERIFY_AFTER_SECONDS", 0)
    here, there = await make_node(**SHARED), await make_node(**SHARED)
    for node in (here, there):
        assert node._periodic is not None
        node._periodic.cancel()
    return here, there


async def again(node: Node, client: Client) -> Client:
    """Return the same user on another connection."""
    other = Client(node)
    await other.connect()
    await other.request(Login(token=(await client.request(Login()))["token"]))
    return other


def events_about(client: Client, name: str) -> list[str]:
    """Return the types of the joined and left events about a user that this client received."""
    return [frame["type"] for frame in client.received("joined", "left") if frame["user"]["name"] == name]


# Order -------------------------------------------------------------------------------------------


async def test_a_join_during_the_leave_is_announced_after_it(
    recorded: list[str], node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, ann = await Client.named(node, "bob", "lobby"), await Client.named(node, "ann", "lobby")
    double = await again(node, ann)
    remove, removed = node.context.presence.remove, asyncio.Event()

    async def slowly(*arguments: Any) -> bool:
        out = await remove(*arguments)
        removed.set()
        # Within these turns of the loop a join that does not wait for the leave is complete.
        for _ in range(200):
            await asyncio.sleep(0)
        return out

    monkeypatch.setattr(node.context.presence, "remove", slowly)
    leaving = asyncio.create_task(ann.request(Leave(room="lobby")))
    await wait_for(removed)
    await double.request(Join(room="lobby"))
    await leaving
    await node.context.tasks.drain()
    assert events_about(bob, "ann") == ["joined", "left", "joined"]
    assert recorded == ["+bob", "+ann", "-ann", "+ann"]


async def test_on_join_runs_for_a_user_that_left_elsewhere_during_the_look_up(
    recorded: list[str], pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    ann = await Client.named(here, "ann", "lobby")
    double = await again(there, ann)
    find = Held(there.context.presence.find)
    monkeypatch.setattr(there.context.presence, "find", find)
    joining = asyncio.create_task(double.request(Join(room="lobby")))
    await wait_for(find.done)
    await ann.request(Leave(room="lobby"))
    await here.context.tasks.drain()
    find.go.set()
    await joining
    assert recorded == ["+ann", "-ann", "+ann"]


async def test_crossed_announcements_of_two_processes_are_corrected(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    bob, ann = await Client.named(there, "bob", "lobby"), await Client.named(here, "ann", "lobby")
    eve = await Client.named(here, "eve", "lobby")
    double = await again(there, ann)
    remove = Held(here.context.presence.remove_all)
    monkeypatch.setattr(here.context.presence, "remove_all", remove)
    leaving = asyncio.create_task(ann.request(Leave(room="lobby")))
    await wait_for(remove.done)
    await double.request(Join(room="lobby"))
    await eve.until(lambda: events_about(eve, "ann"))
    remove.go.set()
    await leaving
    await bob.until(lambda: "left" in events_about(bob, "ann"))
    assert events_about(bob, "ann")[-1] == events_about(eve, "ann")[-1] == "left"
    # Ann leaves while she is looked up, and the announcements cross again.
    find = Held(here.context.presence.find)
    monkeypatch.setattr(here.context.presence, "find", find)
    verifying = asyncio.create_task(here.leave.heartbeat())
    await wait_for(find.done)
    await double.request(Leave(room="lobby"))
    await eve.until(lambda: events_about(eve, "ann").count("left") == 2)
    find.go.set()
    await verifying
    assert events_about(eve, "ann")[-1] == "joined"
    await here.leave.heartbeat()
    await bob.until(lambda: events_about(bob, "ann").count("left") == 3)
    assert events_about(bob, "ann")[-1] == events_about(eve, "ann")[-1] == "left"
    # All announcements are verified by now.
    before = len(eve.frames)
    for node in (*pair, *pair):
        await node.leave.heartbeat()
    assert len(eve.received("joined", "left", "reply")) <= before
    assert await member_names(eve, "lobby") == ["bob", "eve"]


async def test_a_user_whose_first_connection_failed_to_join_is_announced_later(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    bob, ann = await Client.named(here, "bob", "lobby"), await Client.named(here, "ann")
    double = await again(there, ann)
    add = Held(here.context.presence.add)
    monkeypatch.setattr(here.context.presence, "add", add)
    joining = asyncio.create_task(ann.request(Join(room="lobby")))
    await wait_for(add.done)
    await double.request(Join(room="lobby"))
    ann.disconnect()
    add.go.set()
    await error_of(RoomClosed, joining)
    await here.context.tasks.drain()
    assert events_about(bob, "ann") == []
    await here.leave.heartbeat()
    assert events_about(bob, "ann") == ["joined"]


async def test_an_announcement_during_the_look_up_is_newer(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = pair
    bob, ann = await Client.named(here, "bob", "lobby"), await Client.named(here, "ann", "lobby")
    await ann.request(Leave(room="lobby"))
    room = here.context.registry.cached_room("chat", "lobby")
    assert room is not None
    assert ann.connection.user is not None
    find, subscribe = here.context.presence.find, here.context.broker.subscribe
    # Once Ann has joined before the result, and once her join is still under way.
    for under_way in (False, True):
        if under_way:
            await ann.request(Leave(room="lobby"))
            here.presence_events.user_returned(room, ann.connection.user)
        found, subscribed = Held(find), Held(subscribe)
        monkeypatch.setattr(here.context.presence, "find", found)
        verifying = asyncio.create_task(here.leave.heartbeat())
        await wait_for(found.done)
        monkeypatch.setattr(here.context.presence, "find", find)
        monkeypatch.setattr(here.context.broker, "subscribe", subscribed)
        joining = asyncio.create_task(ann.request(Join(room="lobby")))
        await wait_for(subscribed.done)
        if not under_way:
            subscribed.go.set()
            await joining
        found.go.set()
        await verifying
        subscribed.go.set()
        await joining
    assert events_about(bob, "ann") == ["joined", "left", "joined", "left", "joined", "joined"]


# Diffs of large rooms ----------------------------------------------------------------------------


class Member(Client):
    _looked = 0

    def changes(self) -> list[Any]:
        """Return the joins and leaves received since the last call.

        Single ones as ``+name`` and ``-name``, a diff as a list of its count and these.
        """
        self.read()
        new, self._looked = self.frames[self._looked :], len(self.frames)
        changes: list[Any] = []
        for frame in new:
            if frame["type"] in ("joined", "left"):
                changes.append(("+" if frame["type"] == "joined" else "-") + frame["user"]["name"])
            elif frame["type"] == "members":
                joined, left = ([user["name"] for user in frame[side]] for side in ("joined", "left"))
                users = *(f"+{name}" for name in joined), *(f"-{name}" for name in left)
                changes.append([frame["count"], *users])
        return changes


async def join_members(node: Node, size: int = LARGE + 1) -> list[Member]:
    """Return members of the lobby that have received each other's joins."""
    members = [await Member.named(node, f"m{number}", "lobby") for number in range(size)]
    await node.presence_diffs.flush()
    for each in members:
        each.changes()
    return members


async def test_joins_and_leaves_of_a_large_room_are_sent_as_one_diff(node: Node) -> None:
    ann, *_ = await join_members(node)
    bob = await Member.named(node, "bob", "lobby")
    eve = await Member.named(node, "eve", "lobby")
    await bob.request(Leave(room="lobby"))
    assert ann.changes() == []
    await node.presence_diffs.flush()
    assert ann.changes() == [[LARGE + 2, "+eve", "-bob"]]
    assert ann.frames[-1] == {
        "type": "members",
        "room": "lobby",
        "count": LARGE + 2,
        "joined": [{"name": "eve", "id": eve.connection.user.id, "guest": True}],  # type: ignore[union-attr]
        "left": [ann.frames[-1]["left"][0]],
    }
    assert eve.changes() == [[LARGE + 2, "-bob"]]
    await node.presence_diffs.flush()
    assert ann.changes() == []


async def test_diffs_are_sent_periodically(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_events, "DIFF_SECONDS", 0.01)
    ann, *_ = [await Member.named(node, f"m{number}", "lobby") for number in range(LARGE + 1)]
    await ann.until(lambda: ann.received("members"))
    # Again, after a pause without changes.
    await node.context.tasks.drain()
    await Member.named(node, "bob", "lobby")
    await ann.until(lambda: len(ann.received("members")) == 2)
    assert ann.received("members")[1]["count"] == LARGE + 2


async def test_changes_are_sent_in_order_while_a_room_grows_large_and_small_again(node: Node) -> None:
    ann = await Member.named(node, "ann", "lobby")
    others = [await Member.named(node, f"m{number}", "lobby") for number in range(LARGE + 1)]
    assert ann.changes() == ["+m0", "+m1"]
    for each in others[:3]:
        await each.request(Leave(room="lobby"))
    # The room is small by now; the pending diff goes first.
    assert ann.changes() == []
    await node.presence_diffs.flush()
    assert ann.changes() == [[2, "+m3", "-m0", "-m1", "-m2"]]
    await others[0].request(Join(room="lobby"))
    assert ann.changes() == ["+m0"]


async def test_a_joining_member_receives_what_its_reply_lacks_and_not_itself(node: Node) -> None:
    ann, *_ = await join_members(node)
    bob = await Member.named(node, "bob", "lobby")
    eve = await Member.named(node, "eve", "lobby")
    dan = await Member.named(node, "dan", "lobby")
    await bob.request(Leave(room="lobby"))
    await node.presence_diffs.flush()
    count = LARGE + 3
    assert ann.changes() == [[count, "+eve", "+dan", "-bob"]]
    assert eve.changes() == [[count, "+dan", "-bob"]]
    assert dan.changes() == [[count, "-bob"]]


async def test_a_subscriber_receives_diffs(node: Node) -> None:
    await join_members(node)
    bob = await Member.named(node, "bob")
    await bob.request(Subscribe(room="lobby"))
    await Member.named(node, "eve", "lobby")
    await node.presence_diffs.flush()
    assert bob.changes() == [[LARGE + 2, "+eve"]]
    await bob.request(Join(room="lobby"))
    await Member.named(node, "dan", "lobby")
    await node.presence_diffs.flush()
    assert bob.changes() == [[LARGE + 4, "+dan"]]


async def test_while_presence_is_down_the_count_is_what_the_process_knows(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, *_ = await join_members(node)
    await Member.named(node, "bob", "lobby")

    async def counts(groups: Collection[str]) -> list[int]:
        raise Unavailable("Down.")

    monkeypatch.setattr(node.context.presence, "counts", counts)
    await node.presence_diffs.flush()
    assert ann.changes() == [[LARGE + 2, "+bob"]]


async def test_a_join_during_the_count_is_sent_with_the_next_count(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, *_ = await join_members(node)
    bob = await Member.named(node, "bob", "lobby")
    counts, counted, go_on = node.context.presence.counts, asyncio.Event(), asyncio.Event()

    async def slowly(groups: Any) -> list[int]:
        found = await counts(groups)
        counted.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(node.context.presence, "counts", slowly)
    flushing = asyncio.create_task(node.presence_diffs.flush())
    await counted.wait()
    eve = await Member.named(node, "eve", "lobby")
    go_on.set()
    await flushing
    assert (ann.changes(), bob.changes(), eve.changes()) == ([[LARGE + 2, "+bob"]], [], [])
    await node.presence_diffs.flush()
    assert (ann.changes(), bob.changes()) == ([[LARGE + 3, "+eve"]], [[LARGE + 3, "+eve"]])
    assert eve.changes() == []


async def test_a_large_room_without_members_here_is_forgotten(node: Node) -> None:
    members = await join_members(node, LARGE + 2)
    for each in members:
        await each.request(Leave(room="lobby"))
    await node.presence_diffs.flush()
    assert [each.changes() for each in members[:2]] == [[], []]
    # With new members it is small.
    ann, bob = members[:2]
    await ann.request(Join(room="lobby"))
    await bob.request(Join(room="lobby"))
    assert ann.changes() == ["+m1"]
    await error_of(NotMember, members[2].request(ListMembers(room="lobby")))


async def test_roomer_clients_receive_each_change_at_once(node: Node) -> None:
    await join_members(node)
    peer = await Peer.connected(node, load_protocol("roomer")())
    await peer.send(roomer("lobby", "join"))
    peer.received()
    bob = await Member.named(node, "bob", "lobby")
    await bob.request(Leave(room="lobby"))

    def received() -> list[tuple[str, bytes]]:
        return [(each[1], each[4]) for each in map(fields, peer.received()) if each[0] == "lobby"]

    assert received() == [("new_member", b"bob"), ("member_left", b"bob")]
    await node.presence_diffs.flush()
    assert received() == []


async def test_each_process_sends_diffs_to_its_own_members(make_node: MakeNode, redis_url: str) -> None:
    presence = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": redis_url}}
    here, there = [await make_node(presence_diff_threshold=LARGE, presence=presence) for _ in range(2)]
    ann = await Member.named(here, "ann", "lobby")
    others = [await Member.named(there, f"m{number}", "lobby") for number in range(LARGE + 1)]
    await others[-1].send("lobby", "after all joins")
    await ann.until(ann.messages)
    assert ann.changes() == ["+m0", "+m1"]
    await here.presence_diffs.flush()
    assert ann.changes() == [[LARGE + 2, "+m2", "+m3"]]
    assert [each.changes() for each in others] == [["+m1"], [], [], []]
    await there.presence_diffs.flush()
    assert [each.changes() for each in others] == [
        [[LARGE + 2, "+m2", "+m3"]],
        [[LARGE + 2, "+m2", "+m3"]],
        [[LARGE + 2, "+m3"]],
        [],
    ]


class ListKeeper:
    """A member that keeps the member list from the events it receives.

    ``at_once``: presence answers at once, so no reply can contain a change before its event is sent.
    """

    def __init__(self, client: Member, *, at_once: bool) -> None:
        self.client = client
        self._at_once = at_once
        self.members: set[str] = set()
        self.count = 0
        self._read = 0

    @property
    def name(self) -> str:
        assert self.client.connection.user is not None
        return self.client.connection.user.name

    def read(self) -> None:
        self.client.read()
        for frame in self.client.frames[self._read :]:
            self._take(frame)
        self._read = len(self.client.frames)

    def _take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "reply":
            self.members = {user["name"] for user in frame["data"].get("members", ())}
            self.count = frame["data"].get("count", 0)
        elif frame["type"] == "joined":
            assert not self._at_once or frame["user"]["name"] not in self.members, "a listed user joins"
            self.members.add(frame["user"]["name"])
            self.count = len(self.members)
        elif frame["type"] == "left":
            assert not self._at_once or frame["user"]["name"] in self.members, "an unlisted user leaves"
            self.members.discard(frame["user"]["name"])
            self.count = len(self.members)
        elif frame["type"] == "members":
            joined, left = ({user["name"] for user in frame[side]} for side in ("joined", "left"))
            assert self.name not in joined, "a member receives its own join"
            self.members = (self.members | joined) - left
            self.count = frame["count"]
            assert not self._at_once or self.count == len(self.members)


@pytest.fixture(params=["memory", "redis", "database"])
def presence(request: pytest.FixtureRequest) -> dict[str, Any]:
    name = str(request.param)
    options = {"url": request.getfixturevalue("redis_url")} if name == "redis" else {}
    return {"BACKEND": f"rooms.presence.{name}.{name.capitalize()}Presence", "OPTIONS": options}


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_member_lists_kept_from_events_are_right_after_random_changes(
    make_node: MakeNode, presence: dict[str, Any], seed: int
) -> None:
    rng = random.Random(seed)
    node = await make_node(presence_diff_threshold=LARGE, presence=presence)
    at_once = not node.context.presence.shared
    keepers = [
        ListKeeper(await Member.named(node, f"m{number}"), at_once=at_once) for number in range(2 * LARGE + 2)
    ]
    members: set[str] = set()

    async def act(keeper: ListKeeper) -> None:
        if keeper.name in members and rng.random() < 0.6:
            members.discard(keeper.name)
            await keeper.client.request(Leave(room="lobby"))
        else:
            members.add(keeper.name)
            await keeper.client.request(Join(room="lobby"))

    for keeper in keepers:
        keeper.read()
    for _ in range(100):
        await asyncio.gather(*map(act, rng.sample(keepers, rng.choice([1, 1, 3]))))
        if rng.random() < 0.3:
            await node.presence_diffs.flush()
        for keeper in keepers:
            keeper.read()
    await node.presence_diffs.flush()
    for keeper in keepers:
        keeper.read()
        expected = members if keeper.name in members else set()
        assert (keeper.members, keeper.count) == (expected, len(expected))
