"""Writing what piled up, where frames may be written at once: no task and no ``await`` for any connection.

One flusher writes for all connections of an event loop: two turns after the first of them had something
to say, so that what arrived meanwhile goes out with it, in one write for each.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Protocol

from rooms.hub.connection import Connection
from rooms.hub.shared_frames import Wire

# So many connections are written to before others get their turn, which takes some 7 ms. What is said while
# it is one's turn to wait is a round of its own: the more turns, the less goes out together.
WRITES_A_TURN = 1024


class Waiting(Protocol):
    """A batch, which is for many, or an outlet."""

    @property
    def unwritten(self) -> bool:
        """After ``flush``: whether there are others to be written to."""

    def flush(self, most: int, /) -> int:
        """Write to at most so many connections; returns to how many."""


class WriteScheduler:
    """``later`` calls a function in the next turn of the event loop."""

    def __init__(self, later: Callable[[Callable[[], None]], object]) -> None:
        self._later = later
        self._waiting: deque[Waiting] = deque()
        self._under_way = False

    def add(self, waiting: Waiting) -> None:
        """It has something to be written."""
        self._waiting.append(waiting)
        if not self._under_way:
            self._under_way = True
            self._later(self._wait)

    def flush(self) -> None:
        """Write what waits now."""
        while self._waiting:
            self._waiting.popleft().flush(sys.maxsize)

    def _wait(self) -> None:
        self._later(self._flush)

    def _flush(self) -> None:
        waiting, left = self._waiting, WRITES_A_TURN
        try:
            while waiting and left > 0:
                first = waiting.popleft()
                left -= first.flush(left)
                if first.unwritten:
                    waiting.appendleft(first)
        finally:
            # Whatever happened, the others are written to.
            self._under_way = bool(waiting)
            if waiting:
                self._later(self._flush)


class DirectWriter:
    """From a connection's outbox to its wire. While the client does not read nothing is taken out, and the
    outbox's own bounds hold."""

    __slots__ = ("_connection", "_flusher", "_wire")

    unwritten: ClassVar[bool] = False

    def __init__(self, connection: Connection, wire: Wire, flusher: WriteScheduler) -> None:
        self._connection = connection
        self._wire = connection.wire = wire
        self._flusher = flusher
        connection.on_wake(self._wake)
        wire.on_drained(self._drained)

    def flush(self, most: int = 1) -> int:
        """Write what waits for this client alone, and the last word after it."""
        connection, wire = self._connection, self._wire
        try:
            for piece in connection.take_framed():
                if not wire.write(piece):
                    connection.writing_since = connection.writing_since or time.monotonic()
            if connection.close_code is not None:
                connection.writing_since = connection.writing_since or time.monotonic()
                wire.close(int(connection.close_code), connection.close_reason)
        except Exception as error:
            connection.fail(error)
        return 1

    def end(self) -> None:
        """The connection is let go of; if there is a last word, it is said now."""
        self.flush()
        self._connection.on_wake(lambda: None)
        self._connection.wire = None

    def _wake(self) -> None:
        if self._connection.writing_since is None or self._connection.close_code is not None:
            self._flusher.add(self)

    def _drained(self) -> None:
        if self._connection.close_code is None:
            self._connection.writing_since = None
            self._flusher.add(self)
