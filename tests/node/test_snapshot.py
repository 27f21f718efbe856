"""The snapshot of a join: no message precedes the reply, and none is doubled or lost around it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rooms.histories import Snapshot
from rooms.histories.memory import MemoryHistory
from rooms.hub.config import RoomConfig
from rooms.hub.connection import Connection
from rooms.hub.room import Room
from rooms.node.node import Node
from rooms.protocol.commands import Join
from rooms.protocol.errors import Unavailable
from rooms.protocol.types import Position
from tests.node.clients import Client, MakeNode, error_of, wait_for


@pytest.mark.parametrize(("limit", "count"), [(None, 2), (1, 1), (0, 0), (10**6, 3)])
async def test_the_reply_has_the_requested_number_of_messages(
    make_node: MakeNode, limit: int | None, count: int
) -> None:
    node = await make_node(join_history_limit=2, recovery_max_messages=3)
    ann = await Client.named(node, "ann", "lobby")
    for number in range(5):
        await ann.send("lobby", number)
    data = await ann.request(Join(room="lobby", limit=limit))
    assert len(data["messages"]) == count


async def test_a_snapshot_that_does_not_fit_into_the_reply_is_not_a_recovery(make_node: MakeNode) -> None:
    ann = await Client.named(await make_node(send_queue_max_bytes=1000), "ann")
    position = Position(**(await ann.request(Join(room="lobby")))["position"])
    texts = [str(number) * 300 for number in range(5)]
    for text in texts:
        await ann.send("lobby", text)
    data = await ann.request(Join(room="lobby", since=position))
    assert ([each["data"] for each in data["messages"]], data["recovered"]) == (texts[2:], False)
    assert data["position"]["seq"] == 5


class Paused(MemoryHistory):
    """Pauses in the middle of a snapshot: before the messages are read, or after."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def _pause(self) -> None:
        self.reached.set()
        await self.go.wait()

    async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
        if self.where == "before":
            await self._pause()
        found = await super().snapshot(room, since, limit)
        if self.where == "after":
            await self._pause()
        return found


async def check_join_among_messages(node: Node, where: str) -> None:
    """Messages are sent before the join, in the middle of its snapshot, and after it."""
    history = Paused(where)
    node.context.histories["memory"] = history
    room = f"room {where} {len(node.connections)}"
    ann, bob = (
        await Client.named(node, f"ann {room[:20]}", room),
        await Client.named(node, f"bob {room[:20]}"),
    )
    await ann.send(room, 1)
    history.go.clear()
    history.reached.clear()
    joining = asyncio.ensure_future(bob.request(Join(room=room)))
    await history.reached.wait()
    for number in (2, 3):
        await ann.send(room, number)
    assert [frame for frame in bob.read() if frame.get("room") == room] == []
    history.go.set()
    data = await joining
    for number in (4, 5):
        await ann.send(room, number)
    of_room = [frame for frame in bob.received("reply", "message", "joined", "left") if is_about(frame, room)]
    assert of_room[0]["type"] == "reply"
    received = [frame["seq"] for frame in data["messages"]] + [
        frame["seq"] for frame in of_room[1:] if frame["type"] == "message"
    ]
    assert received == [1, 2, 3, 4, 5]
    assert data["position"]["seq"] == len(data["messages"])
    assert ann.messages() == [1, 2, 3, 4, 5]


def is_about(frame: dict[str, Any], room: str) -> bool:
    return frame.get("room") == room or frame.get("data", {}).get("room", {}).get("name") == room


@pytest.mark.parametrize("where", ["before", "after"])
async def test_no_message_precedes_the_reply_and_none_is_doubled_or_lost(node: Node, where: str) -> None:
    await check_join_among_messages(node, where)


def without_cork(connection: Connection) -> None:
    """Broken: pushes overtake the reply."""


def forgetting(room: Room, connection: Connection, seq: int) -> None:
    """Broken: corked pushes are lost."""
    connection._corked = None
    connection._bytes = 0


def repeating(room: Room, connection: Connection, seq: int) -> None:
    """Broken: what the reply covers is sent again."""
    connection.uncork()


@pytest.mark.parametrize(
    ("where", "owner", "name", "broken"),
    [
        ("before", Connection, "cork", without_cork),
        ("after", Connection, "cork", without_cork),
        ("after", Room, "mark_synced", forgetting),
        ("before", Room, "mark_synced", repeating),
    ],
)
async def test_the_check_above_detects_broken_joins(
    node: Node, monkeypatch: pytest.MonkeyPatch, where: str, owner: Any, name: str, broken: Any
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError):
        await check_join_among_messages(node, where)


async def test_a_join_that_resumes_among_messages_gets_each_once(node: Node) -> None:
    history = Paused("after")
    node.context.histories["memory"] = history
    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    position = (await ann.request(Join(room="lobby")))["position"]
    await ann.send("lobby", 1)
    history.go.clear()
    history.reached.clear()
    joining = asyncio.ensure_future(bob.request(Join(room="lobby", since=Position(**position))))
    await history.reached.wait()
    await ann.send("lobby", 2)
    history.go.set()
    data = await joining
    assert (data["recovered"], [each["data"] for each in data["messages"]]) == (True, [1])
    assert bob.messages() == [2]


async def test_many_joins_among_many_messages_get_each_message_once(node: Node) -> None:
    """Whenever a client joins, snapshot and pushes fit together without a gap or a duplicate."""
    senders = [await Client.named(node, f"sender {n}", "lobby") for n in range(3)]
    joiners = [await Client.named(node, f"joiner {n}") for n in range(10)]

    async def send(client: Client) -> None:
        for number in range(20):
            await client.send("lobby", number)
            await asyncio.sleep(0)

    async def join(client: Client, turns: int) -> dict[str, Any]:
        for _ in range(turns):
            await asyncio.sleep(0)
        data: dict[str, Any] = await client.request(Join(room="lobby", limit=300))
        return data

    *replies, _, _, _ = await asyncio.gather(
        *(join(client, 4 * n) for n, client in enumerate(joiners)), *map(send, senders)
    )
    for client, data in zip(joiners, replies, strict=True):
        received = [each["seq"] for each in [*data["messages"], *client.received("message")]]
        assert received == list(range(1, 61))


async def test_a_client_whose_join_fails_receives_none_of_the_messages_meanwhile(
    node: Node,
) -> None:
    class Failing(Paused):
        async def snapshot(self, room: RoomConfig, since: Position | None, limit: int) -> Snapshot:
            await super().snapshot(room, since, limit)
            raise Unavailable("The database does not answer.")

    ann, bob = await Client.named(node, "ann", "lobby"), await Client.named(node, "bob")
    failing = Failing("before")
    failing.go.clear()
    working = node.context.histories["memory"]
    node.context.histories["memory"] = failing
    joining = asyncio.ensure_future(bob.request(Join(room="lobby")))
    await wait_for(failing.reached)
    await ann.send("lobby", "not for bob")
    failing.go.set()
    await error_of(Unavailable, joining)
    assert bob.messages() == []
    node.context.histories["memory"] = working
    await ann.send("lobby", "nor this")
    await bob.request(Join(room="lobby"))
    await ann.send("lobby", "this")
    assert bob.messages() == ["this"]
