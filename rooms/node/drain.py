"""Takes leave of the clients under servers that would not, as uvicorn and Daphne: those cut every connection.

Their handlers of SIGTERM and SIGINT are made to wait: the signal has ``closing.py`` do its work, and only
then reaches the server. ``runrooms`` needs none of this, since it knows the engine itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from types import FrameType

from rooms.node.closing import close_connections
from rooms.node.node import Node

logger = logging.getLogger("rooms.node")

STOP_SECONDS = 3.5


def arrange(node: Node) -> None:
    """Come before the handlers of the server whose event loop this is. Does nothing where it has none of
    SIGTERM, or runs in another thread than the main one, to which signals belong."""
    if threading.current_thread() is threading.main_thread() and _is_handled(signal.SIGTERM):
        farewell = _Farewell(node)
        for number in farewell.servers:
            signal.signal(number, farewell)


def _is_handled(number: signal.Signals) -> bool:
    """Whether a signal has another effect than by itself."""
    handler = signal.getsignal(number)
    return callable(handler) and handler is not signal.default_int_handler


class _Farewell:
    """A handler of signals in the place of the server's; ``servers`` are those."""

    def __init__(self, node: Node) -> None:
        self.servers = {
            number: signal.getsignal(number)
            for number in (signal.SIGTERM, signal.SIGINT)
            if _is_handled(number)
        }
        self._node = node
        self._leaving: asyncio.Task[None] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # A second signal reaches the server at once.
        for each, handler in self.servers.items():
            signal.signal(each, handler)
        try:
            self._node.loop.call_soon_threadsafe(self._begin, signal.Signals(number))
        except RuntimeError:
            # The event loop is over.
            signal.raise_signal(number)

    def _begin(self, number: signal.Signals) -> None:
        self._leaving = asyncio.create_task(self._leave(number))

    async def _leave(self, number: signal.Signals) -> None:
        try:
            await close_connections(self._node)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._node.stop(), STOP_SECONDS)
        except Exception:
            logger.exception("Leave could not be taken of every client.")
        signal.raise_signal(number)
