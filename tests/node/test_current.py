"""The node of this process, as server code finds it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import rooms
from rooms.models import Application
from rooms.node import current, standalone
from rooms.node.node import Node
from rooms.protocol.errors import RoomsError, Unavailable
from rooms.protocol.types import User
from tests.servers import BASE_DIR

ANN = User(name="ann", id="1", guest=True)


class RecordingServices:
    """The services of a node in another thread."""

    def __init__(self) -> None:
        self.threads: list[str] = []

    async def members(self, application: str, room: str) -> list[User]:
        self.threads.append(threading.current_thread().name)
        return [ANN]


class ServingNode:
    """What server code needs of a node."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.services: Any = RecordingServices()


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServingNode]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="node")
    thread.start()
    node = ServingNode(loop)
    monkeypatch.setattr(current, "node", node)
    yield node
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_without_a_node_there_is_none() -> None:
    assert current.node is None
    assert Node.current() is None


async def test_the_node_is_current_from_its_start_to_its_stop(chat: Application) -> None:
    node = await Node.get_or_start()
    assert current.node is node
    assert Node.current() is node
    await node.stop()
    assert current.node is None


async def test_a_node_that_fails_to_start_is_not_current(
    chat: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Node) -> None:
        raise Unavailable("Down.")

    monkeypatch.setattr(Node, "start", fail)
    with pytest.raises(Unavailable):
        await Node.get_or_start()
    assert current.node is None


async def test_a_node_that_serves_no_sockets_is_not_current(chat: Application) -> None:
    async with Node():
        assert current.node is None
    assert current.node is None


def test_a_synchronous_call_runs_in_the_loop_of_the_node(serving: ServingNode) -> None:
    assert rooms.members("chat", "lobby") == [ANN]
    assert serving.services.threads == ["node"]
    # No publisher is created beside a node.
    assert standalone._current is None


async def test_a_synchronous_call_in_another_loop_waits_for_the_node(serving: ServingNode) -> None:
    assert rooms.members("chat", "lobby") == [ANN]


async def test_a_synchronous_call_in_the_loop_of_the_node_is_an_error(serving: ServingNode) -> None:
    serving.loop, loop = asyncio.get_running_loop(), serving.loop
    try:
        with pytest.raises(RoomsError, match="begins with a"):
            rooms.members("chat", "lobby")
    finally:
        serving.loop = loop
    assert serving.services.threads == []


async def test_an_asynchronous_call_goes_to_the_services_of_the_node(serving: ServingNode) -> None:
    assert await rooms.amembers("chat", "lobby") == [ANN]
    assert standalone._current is None


def test_the_module_imports_neither_the_node_nor_django() -> None:
    probe = "import sys, rooms.node.current\nprint({'rooms.node.node', 'django.db'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=BASE_DIR)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
