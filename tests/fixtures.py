"""Nodes in the event loop of a test. Modules that need Django are imported late."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rooms.extensions import Extension
    from rooms.models import Application
    from rooms.node.node import Node
    from tests.node.unreliable_layer import UnreliableLayer


@pytest.fixture
def unreliable_layer() -> Iterator[UnreliableLayer]:
    """Replace the channel layer by an empty one."""
    from channels.layers import channel_layers

    from tests.node.unreliable_layer import UnreliableLayer

    unreliable_layer = UnreliableLayer()
    before = channel_layers.set("default", unreliable_layer)
    yield unreliable_layer
    channel_layers.set("default", before)


@pytest.fixture
def chat(transactional_db: None, unreliable_layer: UnreliableLayer) -> Application:
    """Create an application without limits, with its history in memory."""
    from rooms.models import Application

    return Application.objects.create(
        name="chat", rooms_on_demand=True, rooms_stay=True, history="memory", request_rate=0
    )


@pytest.fixture
async def make_node(chat: Application) -> AsyncIterator[Callable[..., Awaitable[Node]]]:
    """Return a function that starts a node with these settings, as another process would."""
    from rooms.conf import get_settings
    from rooms.node.node import Node

    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> Node:
            node = Node(dataclasses.replace(get_settings(), **settings))
            stack.push_async_callback(node.stop)
            await node.start()
            return node

        yield make


@pytest.fixture
async def node(chat: Application) -> AsyncIterator[Node]:
    """Return the node of this process."""
    from rooms.node.node import Node

    node = await Node.get_or_start()
    yield node
    await node.stop()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Replace the clock of grace periods; ``clock.now`` sets it."""
    from rooms.node import context

    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(context, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def install_extension() -> Iterator[Callable[[type[Extension]], str]]:
    """Return a function that registers an extension for this test and returns its name."""
    from rooms.extensions import register, registry

    classes: list[type[Extension]] = []

    def install(extension: type[Extension]) -> str:
        classes.append(register(extension))
        return next(name for name in registry.names() if registry.find(name) is extension)

    yield install
    for extension in classes:
        registry.unregister(extension)
