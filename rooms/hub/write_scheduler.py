"""Writes queued frames where frames may be written at once.

There is no task and no ``await`` per connection. One scheduler writes for all connections of an
event loop, two turns after the first of them had something queued: what arrives meanwhile leaves
with it, in one write per connection.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Protocol

from rooms.hub.connection import Connection
from rooms.hub.shared_frames import FrameWriter

# Connections that are written to in one turn of the loop, which takes about 7 ms. Events of the meantime
# open a window of their own: the more turns, the fewer events share a write.
WRITES_PER_TURN = 1024


class Flushable(Protocol):
    """Shared frames, which are for many connections, or the writer of one connection."""

    @property
    def unwritten(self) -> bool:
        """After ``flush``: whether connections are left to be written to."""

    def flush(self, limit: int, /) -> int:
        """Write to at most ``limit`` connections. Returns to how many."""


class WriteScheduler:
    """``call_soon`` calls a function in the next turn of the event loop."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._pending: deque[Flushable] = deque()
        self._scheduled = False

    def add(self, flushable: Flushable) -> None:
        """Have it flushed soon."""
        self._pending.append(flushable)
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._wait_a_turn)

    def flush(self) -> None:
        """Write everything that is pending now."""
        while self._pending:
            self._pending.popleft().flush(sys.maxsize)

    def _wait_a_turn(self) -> None:
        self._call_soon(self._flush)

    def _flush(self) -> None:
        pending, left = self._pending, WRITES_PER_TURN
        try:
            while pending and left > 0:
                first = pending.popleft()
                left -= first.flush(left)
                if first.unwritten:
                    pending.appendleft(first)
        finally:
            # The others are written to, whatever one raised.
            self._scheduled = bool(pending)
            if pending:
                self._call_soon(self._flush)


class DirectWriter:
    """Writes one connection's send queue to its socket.

    While the client does not read nothing is taken out, and the limits of the queue apply.
    """

    __slots__ = ("_connection", "_scheduler", "_writer")

    unwritten: ClassVar[bool] = False

    def __init__(self, connection: Connection, writer: FrameWriter, scheduler: WriteScheduler) -> None:
        self._connection = connection
        self._writer = connection.writer = writer
        self._scheduler = scheduler
        connection.on_wake(self._wake)
        writer.on_drained(self._drained)

    def flush(self, limit: int = 1) -> int:
        """Write what is queued for this client alone, and the close after it."""
        connection, writer = self._connection, self._writer
        try:
            for piece in connection.pop_all_framed():
                if not writer.write(piece):
                    connection.writing_since = connection.writing_since or time.monotonic()
            if connection.close_code is not None:
                connection.writing_since = connection.writing_since or time.monotonic()
                writer.close(int(connection.close_code), connection.close_reason)
        except Exception as error:
            connection.fail(error)
        return 1

    def end(self) -> None:
        """Write what is left, and stop writing: the connection is cleaned up."""
        self.flush()
        self._connection.on_wake(lambda: None)
        self._connection.writer = None

    def _wake(self) -> None:
        if self._connection.writing_since is None or self._connection.close_code is not None:
            self._scheduler.add(self)

    def _drained(self) -> None:
        if self._connection.close_code is None:
            self._connection.writing_since = None
            self._scheduler.add(self)
