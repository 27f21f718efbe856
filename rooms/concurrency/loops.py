"""Calls from other threads and event loops into the node's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def in_loop(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """Run a coroutine in the node's event loop, from any running loop."""
    if asyncio.get_running_loop() is loop:
        return work
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))
