"""What one message to a full room costs, counted: nothing of it for each member but one write."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.db import connection as database
from msgspec import Raw

from rooms.concurrency.thread_pool import ThreadPool
from rooms.hub.write_scheduler import DirectWriter
from rooms.models import Application
from rooms.node.node import Node
from rooms.protocol import frame_protocol
from rooms.protocol.commands import Send
from rooms.protocol.native import Native
from tests.node.clients import PATIENCE, Client, MakeEngine

MEMBERS = 60
MESSAGES = 5


class Wire:
    """Takes everything, and counts."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> bool:
        self.written.append(data)
        return True

    def on_drained(self, call: Callable[[], None]) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        pass


@pytest.fixture
async def node(chat: Application, make_node: MakeEngine) -> Node:
    chat.history = "none"
    await chat.asave()
    return await make_node()


async def settled() -> None:
    """Until nothing is under way any more."""
    for _ in range(50):
        await asyncio.sleep(0)


def counting(patched: pytest.MonkeyPatch, counts: Counter[str], name: str, owner: Any, method: str) -> None:
    original = getattr(owner, method)

    def counted(*given: Any, **named: Any) -> Any:
        counts[name] += 1
        return original(*given, **named)

    patched.setattr(owner, method, counted)


async def cost(
    node: Node, members: int, monkeypatch: pytest.MonkeyPatch, *, volatile: bool
) -> tuple[Counter[str], list[Wire]]:
    """What it takes to tell a room of so many several messages in one turn, and what they got."""
    room = f"room of {members}"
    clients = [await Client.named(node, f"{number} in {room}", room) for number in range(members)]
    wires = [Wire() for _ in clients]
    for client, wire in zip(clients, wires, strict=True):
        client.listen()
        DirectWriter(client.connection, wire, node.context.hub.scheduler)
    await settled()
    counts: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patched:
        counting(patched, counts, "tasks", loop, "create_task")
        counting(patched, counts, "hops", SyncToAsync, "__call__")
        counting(patched, counts, "jobs", ThreadPool, "run")
        counting(patched, counts, "queries", database, "cursor")
        patched.setattr(Native, "encode_broadcast", _counted_broadcast(counts))
        counting(patched, counts, "frames", frame_protocol, "frame")
        async with asyncio.timeout(PATIENCE):
            for number in range(MESSAGES):
                await clients[0].node.messages.send(clients[0].connection, _message(room, number, volatile))
            await settled()
    return counts, wires


def _counted_broadcast(counts: Counter[str]) -> Any:
    original = Native.encode_broadcast.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Native], event: Any, application: str) -> bytes | None:
        counts["encodings"] += 1
        encoded: bytes | None = original(cls, event, application)
        return encoded

    return classmethod(counted)


def _message(room: str, number: int, volatile: bool) -> Any:
    return Send(id=number, room=room, data=Raw(str(number).encode()), volatile=volatile)


@pytest.mark.parametrize("volatile", [False, True])
async def test_a_member_more_costs_a_write_and_nothing_else(
    node: Node, monkeypatch: pytest.MonkeyPatch, volatile: bool
) -> None:
    few, _ = await cost(node, 3, monkeypatch, volatile=volatile)
    many, wires = await cost(node, MEMBERS, monkeypatch, volatile=volatile)
    # What is done regularly makes a task now and then.
    assert many.pop("tasks") < few.pop("tasks") + MEMBERS // 4
    assert many == few
    assert few["encodings"] == 2 * MESSAGES  # the sender's answer, and what the room is told
    assert few["frames"] == 2  # one for the sender, who heard its answers besides, and one for all others
    assert few["queries"] == few["jobs"] == few["hops"] == 0
    assert [len(wire.written) for wire in wires] == [1] * MEMBERS
    assert len({id(wire.written[0]) for wire in wires[1:]}) == 1
