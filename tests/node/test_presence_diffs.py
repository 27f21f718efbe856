"""Large rooms: who came and who went is told once a second, and every list of members can be kept right."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import pytest

from rooms.conf import load_protocol
from rooms.node import presence_diffs
from rooms.protocol.commands import Join, Leave, ListMembers, Subscribe
from rooms.protocol.errors import NotMember, Unavailable
from tests.node.clients import Client, MakeEngine, refused
from tests.node.peers import Peer, fields, roomer

if TYPE_CHECKING:
    from rooms.node.node import Node

LARGE = 3
# So many random lives are led with each presence; by hand more of them.
SEEDS = int(os.environ.get("ROOMS_TEST_SEEDS", "7"))


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has gathered is told when the test says so."""
    monkeypatch.setattr(presence_diffs, "DIGEST_SECONDS", 3600)


@pytest.fixture
async def node(make_node: MakeEngine) -> Node:
    return await make_node(presence_diff_threshold=LARGE)


class Member(Client):
    _looked = 0

    def news(self) -> list[Any]:
        """What it was told since the last look of who comes and goes: ``+name`` and ``-name``, or of a digest
        its count and these."""
        self.listen()
        new, self._looked = self.heard[self._looked :], len(self.heard)
        told: list[Any] = []
        for frame in new:
            if frame["type"] in ("joined", "left"):
                told.append(("+" if frame["type"] == "joined" else "-") + frame["user"]["name"])
            elif frame["type"] == "members":
                joined, left = ([user["name"] for user in frame[side]] for side in ("joined", "left"))
                changes = *(f"+{name}" for name in joined), *(f"-{name}" for name in left)
                told.append([frame["count"], *changes])
        return told


async def crowd(node: Node, size: int = LARGE + 1) -> list[Member]:
    """So many members of the lobby, who have been told of each other."""
    members = [await Member.named(node, f"m{number}", "lobby") for number in range(size)]
    await node.presence_diffs.flush()
    for each in members:
        each.news()
    return members


async def test_the_members_of_a_large_room_are_told_together(node: Node) -> None:
    ann, *_ = await crowd(node)
    bob = await Member.named(node, "bob", "lobby")
    eve = await Member.named(node, "eve", "lobby")
    await bob.ask(Leave(room="lobby"))
    assert ann.news() == []
    await node.presence_diffs.flush()
    assert ann.news() == [[LARGE + 2, "+eve", "-bob"]]
    assert ann.heard[-1] == {
        "type": "members",
        "room": "lobby",
        "count": LARGE + 2,
        "joined": [{"name": "eve", "id": eve.connection.user.id, "guest": True}],  # type: ignore[union-attr]
        "left": [ann.heard[-1]["left"][0]],
    }
    assert eve.news() == [[LARGE + 2, "-bob"]]
    await node.presence_diffs.flush()
    assert ann.news() == []


async def test_it_is_told_without_anybody_asking(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_diffs, "DIGEST_SECONDS", 0.01)
    ann, *_ = [await Member.named(node, f"m{number}", "lobby") for number in range(LARGE + 1)]
    await ann.until(lambda: ann.told("members"))
    # And again, after a while in which nothing happened.
    await node.context.tasks.drain()
    await Member.named(node, "bob", "lobby")
    await ann.until(lambda: len(ann.told("members")) == 2)
    assert ann.told("members")[1]["count"] == LARGE + 2


async def test_a_room_that_grows_large_and_small_again_tells_everybody_in_order(node: Node) -> None:
    ann = await Member.named(node, "ann", "lobby")
    others = [await Member.named(node, f"m{number}", "lobby") for number in range(LARGE + 1)]
    assert ann.news() == ["+m0", "+m1"]
    for each in others[:3]:
        await each.ask(Leave(room="lobby"))
    # Small by now; what waits goes first.
    assert ann.news() == []
    await node.presence_diffs.flush()
    assert ann.news() == [[2, "+m3", "-m0", "-m1", "-m2"]]
    await others[0].ask(Join(room="lobby"))
    assert ann.news() == ["+m0"]


async def test_a_joiner_is_told_what_its_answer_does_not_say_and_not_of_itself(node: Node) -> None:
    ann, *_ = await crowd(node)
    bob = await Member.named(node, "bob", "lobby")
    eve = await Member.named(node, "eve", "lobby")
    dan = await Member.named(node, "dan", "lobby")
    await bob.ask(Leave(room="lobby"))
    await node.presence_diffs.flush()
    count = LARGE + 3
    assert ann.news() == [[count, "+eve", "+dan", "-bob"]]
    assert eve.news() == [[count, "+dan", "-bob"]]
    assert dan.news() == [[count, "-bob"]]


async def test_one_who_only_listens_hears_the_same(node: Node) -> None:
    await crowd(node)
    bob = await Member.named(node, "bob")
    await bob.ask(Subscribe(room="lobby"))
    await Member.named(node, "eve", "lobby")
    await node.presence_diffs.flush()
    assert bob.news() == [[LARGE + 2, "+eve"]]
    await bob.ask(Join(room="lobby"))
    await Member.named(node, "dan", "lobby")
    await node.presence_diffs.flush()
    assert bob.news() == [[LARGE + 4, "+dan"]]


async def test_where_presence_does_not_answer_the_count_is_what_is_known_here(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, *_ = await crowd(node)
    await Member.named(node, "bob", "lobby")

    async def counts(groups: Collection[str]) -> list[int]:
        raise Unavailable("Down.")

    monkeypatch.setattr(node.context.presence, "counts", counts)
    await node.presence_diffs.flush()
    assert ann.news() == [[LARGE + 2, "+bob"]]


async def test_who_comes_while_the_users_are_counted_is_told_with_the_next_count(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, *_ = await crowd(node)
    bob = await Member.named(node, "bob", "lobby")
    counts, counted, go_on = node.context.presence.counts, asyncio.Event(), asyncio.Event()

    async def slowly(groups: Any) -> list[int]:
        found = await counts(groups)
        counted.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(node.context.presence, "counts", slowly)
    telling = asyncio.create_task(node.presence_diffs.flush())
    await counted.wait()
    eve = await Member.named(node, "eve", "lobby")
    go_on.set()
    await telling
    assert (ann.news(), bob.news(), eve.news()) == ([[LARGE + 2, "+bob"]], [], [])
    await node.presence_diffs.flush()
    assert (ann.news(), bob.news()) == ([[LARGE + 3, "+eve"]], [[LARGE + 3, "+eve"]])
    assert eve.news() == []


async def test_a_room_that_nobody_here_is_in_any_more_is_forgotten(node: Node) -> None:
    members = await crowd(node, LARGE + 2)
    for each in members:
        await each.ask(Leave(room="lobby"))
    await node.presence_diffs.flush()
    assert [each.news() for each in members[:2]] == [[], []]
    # Begun anew, it is small.
    ann, bob = members[:2]
    await ann.ask(Join(room="lobby"))
    await bob.ask(Join(room="lobby"))
    assert ann.news() == ["+m1"]
    await refused(NotMember, members[2].ask(ListMembers(room="lobby")))


async def test_roomers_clients_hear_of_each_at_once(node: Node) -> None:
    await crowd(node)
    peer = await Peer.connected(node, load_protocol("roomer")())
    await peer.say(roomer("lobby", "join"))
    peer.heard()
    bob = await Member.named(node, "bob", "lobby")
    await bob.ask(Leave(room="lobby"))

    def told() -> list[tuple[str, bytes]]:
        return [(each[1], each[4]) for each in map(fields, peer.heard()) if each[0] == "lobby"]

    assert told() == [("new_member", b"bob"), ("member_left", b"bob")]
    await node.presence_diffs.flush()
    assert told() == []


async def test_each_process_tells_its_own_members(make_node: MakeEngine, redis_url: str) -> None:
    presence = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": redis_url}}
    here, there = [await make_node(presence_diff_threshold=LARGE, presence=presence) for _ in range(2)]
    ann = await Member.named(here, "ann", "lobby")
    others = [await Member.named(there, f"m{number}", "lobby") for number in range(LARGE + 1)]
    await others[-1].say("lobby", "so much for that")
    await ann.until(ann.messages)
    assert ann.news() == ["+m0", "+m1"]
    await here.crowds.tell()
    assert ann.news() == [[LARGE + 2, "+m2", "+m3"]]
    assert [each.news() for each in others] == [["+m1"], [], [], []]
    await there.crowds.tell()
    assert [each.news() for each in others] == [
        [[LARGE + 2, "+m2", "+m3"]],
        [[LARGE + 2, "+m2", "+m3"]],
        [[LARGE + 2, "+m3"]],
        [],
    ]


# Anything ----------------------------------------------------------------------------------------


class Keeper:
    """A member who keeps the list of members from what it is told alone. What presence answers ``at_once``
    is told of others before anybody's answer can say it as well."""

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

    def listen(self) -> None:
        self.client.listen()
        for frame in self.client.heard[self._read :]:
            self._take(frame)
        self._read = len(self.client.heard)

    def _take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "reply":
            self.members = {user["name"] for user in frame["data"].get("members", ())}
            self.count = frame["data"].get("count", 0)
        elif frame["type"] == "joined":
            assert not self._at_once or frame["user"]["name"] not in self.members, "one who is there comes"
            self.members.add(frame["user"]["name"])
            self.count = len(self.members)
        elif frame["type"] == "left":
            assert not self._at_once or frame["user"]["name"] in self.members, "one who is not there goes"
            self.members.discard(frame["user"]["name"])
            self.count = len(self.members)
        elif frame["type"] == "members":
            joined, left = ({user["name"] for user in frame[side]} for side in ("joined", "left"))
            assert self.name not in joined, "one is told of one's own coming"
            self.members = (self.members | joined) - left
            self.count = frame["count"]
            assert not self._at_once or self.count == len(self.members)


@pytest.fixture(params=["memory", "redis", "database"])
def presence(request: pytest.FixtureRequest) -> dict[str, Any]:
    name = str(request.param)
    options = {"url": request.getfixturevalue("redis_url")} if name == "redis" else {}
    return {"BACKEND": f"rooms.presence.{name}.{name.capitalize()}Presence", "OPTIONS": options}


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whatever_happens_lists_kept_from_pushes_are_right(
    make_node: MakeEngine, presence: dict[str, Any], seed: int
) -> None:
    chance = random.Random(seed)
    node = await make_node(presence_diff_threshold=LARGE, presence=presence)
    at_once = not node.context.presence.shared
    keepers = [
        Keeper(await Member.named(node, f"m{number}"), at_once=at_once) for number in range(2 * LARGE + 2)
    ]
    inside: set[str] = set()

    async def act(keeper: Keeper) -> None:
        if keeper.name in inside and chance.random() < 0.6:
            inside.discard(keeper.name)
            await keeper.client.ask(Leave(room="lobby"))
        else:
            inside.add(keeper.name)
            await keeper.client.ask(Join(room="lobby"))

    for keeper in keepers:
        keeper.listen()
    for _ in range(100):
        await asyncio.gather(*map(act, chance.sample(keepers, chance.choice([1, 1, 3]))))
        if chance.random() < 0.3:
            await node.presence_diffs.flush()
        for keeper in keepers:
            keeper.listen()
    await node.presence_diffs.flush()
    for keeper in keepers:
        keeper.listen()
        there = inside if keeper.name in inside else set()
        assert (keeper.members, keeper.count) == (there, len(there))
