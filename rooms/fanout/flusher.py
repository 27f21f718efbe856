"""Writing what piled up, where frames may be written at once: no task and no ``await`` for any connection.

One flusher writes for all connections of an event loop: two turns after the first of them had something
to say, so that what arrived meanwhile goes out with it, in one write for each.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from rooms.errors import CloseCode
from rooms.fanout.connection import Connection

logger = logging.getLogger("rooms.fanout")

# So many connections are written to before others get their turn.
WRITES_A_TURN = 512
# Pieces that are no longer together leave in one write.
LONGEST_WRITE = 64 * 1024


class Wire(Protocol):
    """Where whole WebSocket frames are read and written: the scope extension of ``servers/websocket.py``."""

    async def next(self) -> str | bytes | None:
        """What the client says next; None when the socket has ended."""

    def write(self, data: bytes, /) -> bool: ...

    def on_drained(self, call: Callable[[], None], /) -> None: ...

    def close(self, code: int, reason: str, /) -> None: ...


class Flusher:
    """``later`` calls a function in the next turn of the event loop."""

    def __init__(self, later: Callable[[Callable[[], None]], object]) -> None:
        self._later = later
        self._waiting: deque[Outlet] = deque()
        self._under_way = False

    def add(self, outlet: Outlet) -> None:
        """It has something to be written."""
        self._waiting.append(outlet)
        if not self._under_way:
            self._under_way = True
            self._later(self._wait)

    def flush(self) -> None:
        """Write what waits now."""
        for _ in range(len(self._waiting)):
            self._waiting.popleft().flush()

    def _wait(self) -> None:
        self._later(self._flush)

    def _flush(self) -> None:
        waiting = self._waiting
        for _ in range(min(len(waiting), WRITES_A_TURN)):
            waiting.popleft().flush()
        self._under_way = bool(waiting)
        if waiting:
            self._later(self._flush)


class Outlet:
    """From a connection's outbox to its wire. While the client does not read nothing is taken out, and the
    outbox's own bounds hold."""

    __slots__ = ("_connection", "_flusher", "_wire")

    def __init__(self, connection: Connection, wire: Wire, flusher: Flusher) -> None:
        self._connection = connection
        self._wire = wire
        self._flusher = flusher
        connection.on_wake(self._wake)
        wire.on_drained(self._drained)

    def flush(self) -> None:
        """Write what waits now, and the last word after it."""
        connection, wire = self._connection, self._wire
        pieces = connection.take_framed()
        if len(pieces) > 1 and sum(map(len, pieces)) <= LONGEST_WRITE:
            pieces = [b"".join(pieces)]
        try:
            for piece in pieces:
                if not wire.write(piece):
                    connection.writing_since = connection.writing_since or time.monotonic()
            if connection.close_code is not None:
                connection.writing_since = connection.writing_since or time.monotonic()
                wire.close(int(connection.close_code), connection.close_reason)
        except Exception as error:
            # One that cannot be written to is not to keep the others from being told.
            logger.warning("Could not write to %r: %r", connection, error)
            connection.close(CloseCode.INTERNAL_ERROR, "Something could not be sent.", discard=True)

    def end(self) -> None:
        """The connection is let go of; if there is a last word, it is said now."""
        self.flush()
        self._connection.on_wake(lambda: None)

    def _wake(self) -> None:
        if self._connection.writing_since is None or self._connection.close_code is not None:
            self._flusher.add(self)

    def _drained(self) -> None:
        if self._connection.close_code is None:
            self._connection.writing_since = None
            self._flusher.add(self)
