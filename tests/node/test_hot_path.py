"""The cost of a message to a large room: only one write grows with the members."""

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
from tests.node.clients import PATIENCE, Client, MakeNode

MEMBERS = 60
MESSAGES = 5


class Writer:
    """A frame writer that keeps what is written."""

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
async def node(chat: Application, make_node: MakeNode) -> Node:
    chat.history = "none"
    await chat.asave()
    return await make_node()


async def run_turns() -> None:
    """Run the event loop until all broadcasts are written."""
    for _ in range(50):
        await asyncio.sleep(0)


def count_calls(
    patched: pytest.MonkeyPatch, counts: Counter[str], name: str, owner: Any, method: str
) -> None:
    """Count the calls of a method as ``name``."""
    original = getattr(owner, method)

    def counted(*given: Any, **named: Any) -> Any:
        counts[name] += 1
        return original(*given, **named)

    patched.setattr(owner, method, counted)


async def cost(
    node: Node, members: int, monkeypatch: pytest.MonkeyPatch, *, volatile: bool
) -> tuple[Counter[str], list[Writer]]:
    """Return what several messages in one turn cost in a room of that many members, and what was written."""
    room = f"room of {members}"
    clients = [await Client.named(node, f"{number} in {room}", room) for number in range(members)]
    writers = [Writer() for _ in clients]
    for client, writer in zip(clients, writers, strict=True):
        client.read()
        DirectWriter(client.connection, writer, node.context.hub.scheduler)
    await run_turns()
    counts: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patched:
        count_calls(patched, counts, "tasks", loop, "create_task")
        count_calls(patched, counts, "hops", SyncToAsync, "__call__")
        count_calls(patched, counts, "jobs", ThreadPool, "run")
        count_calls(patched, counts, "queries", database, "cursor")
        patched.setattr(Native, "encode_broadcast", _counted_broadcast(counts))
        count_calls(patched, counts, "frames", frame_protocol, "frame")
        async with asyncio.timeout(PATIENCE):
            for number in range(MESSAGES):
                await clients[0].node.messages.send(clients[0].connection, _message(room, number, volatile))
            await run_turns()
    return counts, writers


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
async def test_another_member_costs_one_write_and_nothing_else(
    node: Node, monkeypatch: pytest.MonkeyPatch, volatile: bool
) -> None:
    few, _ = await cost(node, 3, monkeypatch, volatile=volatile)
    many, writers = await cost(node, MEMBERS, monkeypatch, volatile=volatile)
    # The periodic check spawns a task now and then.
    assert many.pop("tasks") < few.pop("tasks") + MEMBERS // 4
    assert many == few
    assert few["encodings"] == 2 * MESSAGES  # the acknowledgement and the broadcast
    assert few["frames"] == 2  # one for the sender, with its acknowledgements, and one for all others
    assert few["queries"] == few["jobs"] == few["hops"] == 0
    assert [len(writer.written) for writer in writers] == [1] * MEMBERS
    assert len({id(writer.written[0]) for writer in writers[1:]}) == 1
