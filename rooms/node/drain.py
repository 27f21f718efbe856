"""Orderly shutdown: each client is sent ``closing``, and may reconnect elsewhere.

Clients are not closed all at once, so that they do not reconnect all at once: each is closed at a
random moment, and sent a random pause after which to reconnect.

uvicorn and Daphne cut every connection when they end. Under them the handlers of SIGTERM and SIGINT
are replaced: the signal drains the node, and only then reaches the server. ``runrooms`` needs no such
handler, since it knows the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import threading
import time
from types import FrameType

from rooms.node.node import Node
from rooms.protocol.errors import CloseCode

logger = logging.getLogger("rooms.node")

# The closes are spread over this time for each connection, and over the second at most.
SPREAD_PER_CONNECTION = 0.01
MAX_SPREAD = 5.0
# A client reconnects after a random time up to the spread, or up to this where few connections are closed.
MIN_RETRY = 1.0
# A command that is executed at the connection's moment has this long to end.
FINISH_SECONDS = 5.0
# And clients have this long to receive ``closing``.
RECEIVE_SECONDS = 3.0
CHECK_SECONDS = 0.05
STOP_TIMEOUT = 3.5


async def close_connections(node: Node) -> None:
    """Close every connection, those with a command under way after its reply.

    Returns when all are gone, or have had their time.
    """
    begin = time.monotonic()
    spread = min(SPREAD_PER_CONNECTION * len(node.connections), MAX_SPREAD)
    moments = {connection: begin + random.uniform(0, spread) for connection in node.connections}
    longest = max(spread, MIN_RETRY)
    while node.connections and time.monotonic() < begin + spread + FINISH_SECONDS + RECEIVE_SECONDS:
        now = time.monotonic()
        for connection in list(node.connections):
            # A connection whose handshake ended after the begin is closed at once.
            moment = moments.get(connection, begin)
            if now >= moment and (not connection.is_busy() or now > moment + FINISH_SECONDS):
                retry = round(random.uniform(0, longest), 3)
                connection.close(CloseCode.SERVER_RESTART, "The server restarts.", retry_in=retry)
        await asyncio.sleep(CHECK_SECONDS)


def handle_signals(node: Node) -> None:
    """Drain before the signal handlers of the server whose event loop this is.

    Does nothing where the server has no handler of SIGTERM, or runs in another thread than the main one,
    to which signals belong.
    """
    if threading.current_thread() is threading.main_thread() and _is_handled(signal.SIGTERM):
        handler = _DrainHandler(node)
        for number in handler.servers:
            signal.signal(number, handler)


def _is_handled(number: signal.Signals) -> bool:
    """Whether a signal has a handler of the server."""
    handler = signal.getsignal(number)
    return callable(handler) and handler is not signal.default_int_handler


class _DrainHandler:
    """A signal handler in the place of the ``servers``' own."""

    def __init__(self, node: Node) -> None:
        self.servers = {
            number: signal.getsignal(number)
            for number in (signal.SIGTERM, signal.SIGINT)
            if _is_handled(number)
        }
        self._node = node
        self._draining: asyncio.Task[None] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # A second signal reaches the server at once.
        for each, handler in self.servers.items():
            signal.signal(each, handler)
        try:
            self._node.loop.call_soon_threadsafe(self._begin, signal.Signals(number))
        except RuntimeError:
            # The event loop is closed.
            signal.raise_signal(number)

    def _begin(self, number: signal.Signals) -> None:
        self._draining = asyncio.create_task(self._drain(number))

    async def _drain(self, number: signal.Signals) -> None:
        try:
            await close_connections(self._node)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._node.stop(), STOP_TIMEOUT)
        except Exception:
            logger.exception("The connections could not be drained.")
        signal.raise_signal(number)
