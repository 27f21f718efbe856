"""Which clients are still there: one timer for all WebSockets of an event loop.

Each is looked at once a round. A round has many parts, so that not everybody is pinged at once.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import ClassVar, Protocol
from weakref import WeakKeyDictionary

PARTS = 20


class Watched(Protocol):
    """What is looked at once a round."""

    def look(self) -> None: ...


class Keepalive:
    """Rounds of ``seconds`` in one event loop."""

    _kept: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, Keepalive]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, seconds: float) -> None:
        self._pause = seconds / PARTS
        self._parts: list[set[Watched]] = [set() for _ in range(PARTS)]
        self._places = count()
        self._running = False
        self._due = 0.0

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, seconds: float) -> Keepalive:
        """The one for rounds of this length in this loop."""
        kept = cls._kept.setdefault(loop, {})
        if seconds not in kept:
            kept[seconds] = cls(seconds)
        return kept[seconds]

    def add(self, socket: Watched) -> int:
        """Look at it from now on; returns its place, to be given to ``discard``. Called in the loop."""
        place = next(self._places) % PARTS
        self._parts[place].add(socket)
        if not self._running:
            self._running = True
            self._wait(0)
        return place

    def discard(self, socket: Watched, place: int) -> None:
        self._parts[place].discard(socket)

    def _wait(self, part: int) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._pause
        loop.call_at(self._due, self._look, part)

    def _look(self, part: int) -> None:
        if not any(self._parts):
            self._running = False
        elif asyncio.get_running_loop().time() - self._due > self._pause:
            # The loop stood still: what has come meanwhile is read before anybody is judged.
            self._wait(part)
        else:
            for socket in list(self._parts[part]):
                socket.look()
            self._wait((part + 1) % PARTS)
