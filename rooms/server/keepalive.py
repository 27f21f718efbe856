"""Keepalive checks of all WebSockets of an event loop with a single timer.

Each connection is checked once an interval. An interval is divided into slots, so that pings are spread
over it.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import ClassVar, Protocol
from weakref import WeakKeyDictionary

SLOTS = 20


class Checked(Protocol):
    """A connection that is checked once an interval."""

    def check_alive(self) -> None: ...


class Keepalive:
    """Checks connections every ``interval`` seconds in one event loop."""

    _instances: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, Keepalive]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, interval: float) -> None:
        self._pause = interval / SLOTS
        self._slots: list[set[Checked]] = [set() for _ in range(SLOTS)]
        self._numbers = count()
        self._running = False
        self._due = 0.0

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, interval: float) -> Keepalive:
        """Return the instance for this interval in this event loop."""
        instances = cls._instances.setdefault(loop, {})
        if interval not in instances:
            instances[interval] = cls(interval)
        return instances[interval]

    def add(self, connection: Checked) -> int:
        """Check ``connection`` from now on; returns its slot for ``discard``.

        Called in the event loop.
        """
        slot = next(self._numbers) % SLOTS
        self._slots[slot].add(connection)
        if not self._running:
            self._running = True
            self._schedule(0)
        return slot

    def discard(self, connection: Checked, slot: int) -> None:
        self._slots[slot].discard(connection)

    def _schedule(self, slot: int) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._pause
        loop.call_at(self._due, self._check, slot)

    def _check(self, slot: int) -> None:
        if not any(self._slots):
            self._running = False
        elif asyncio.get_running_loop().time() - self._due > self._pause:
            # The event loop was blocked: data that has arrived meanwhile is read before the next check.
            self._schedule(slot)
        else:
            for connection in list(self._slots[slot]):
                connection.check_alive()
            self._schedule((slot + 1) % SLOTS)
