"""What goes wrong: each nemesis does one thing to a site, and undoes it again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from tests.chaos.layers import Faults
from tests.chaos.sites import Site


class Nemesis(ABC):
    """``seconds`` is how long it usually goes on. What it has begun, ``end`` undoes."""

    seconds = 0.0
    parts_presence = False
    """Whether processes cannot share meanwhile who is there."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self.site = site
        self.chance = chance

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    async def begin(self) -> None: ...

    async def end(self) -> None:  # noqa: B027 (what has done its work need not be undone)
        """Undo it."""


class _EndOfAWorker(Nemesis):
    seconds = 1.0
    signal: signal.Signals

    async def begin(self) -> None:
        self.server = self.site.end_worker(self.chance, self.signal)

    async def end(self) -> None:
        if self.server is not None:
            await asyncio.to_thread(self.server.restart)


class Kill(_EndOfAWorker):
    """A worker dies without a word."""

    signal = signal.SIGKILL


class Terminate(_EndOfAWorker):
    """A worker is told to end, as in a deploy."""

    signal = signal.SIGTERM


class Roll(Nemesis):
    """All workers of one supervisor are replaced, one after the other."""

    seconds = 5.0

    async def begin(self) -> None:
        self.site.roll()


class RedisDies(Nemesis):
    """Redis is gone, and comes back empty."""

    parts_presence = True
    seconds = 3.0

    async def begin(self) -> None:
        assert self.site.redis is not None
        await asyncio.to_thread(self.site.redis.stop, signal.SIGKILL)

    async def end(self) -> None:
        assert self.site.redis is not None
        await asyncio.to_thread(self.site.redis.launch)


class RedisFreezes(Nemesis):
    """Redis takes what is said to it and answers nothing."""

    parts_presence = True
    seconds = 10.0

    async def begin(self) -> None:
        self._send(signal.SIGSTOP)

    async def end(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, which: signal.Signals) -> None:
        assert self.site.redis is not None
        assert self.site.redis.process is not None
        self.site.redis.process.send_signal(which)


class DatabaseLocked(Nemesis):
    """Somebody else holds what every message has to write to."""

    seconds = 4.0

    async def begin(self) -> None:
        self._open = contextlib.ExitStack()
        await asyncio.to_thread(self._lock, self._open.enter_context(self.site.database()))

    def _lock(self, connection: Any) -> None:
        if self.site.ground.database == "sqlite":
            connection.execute("BEGIN IMMEDIATE")
        else:
            connection.execute("BEGIN")
            connection.execute("LOCK TABLE rooms_sequence, rooms_message IN EXCLUSIVE MODE")

    async def end(self) -> None:
        # What is not committed when the connection closes is rolled back.
        self._open.close()


class DatabaseCut(Nemesis):
    """PostgreSQL closes every connection."""

    async def begin(self) -> None:
        with self.site.database() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


class LayerFails(Nemesis):
    """Processes hear each other badly: lost, twice, late and overtaken."""

    seconds = 6.0
    # PresenceEvents and goings have no numbers: what the layer doubles is heard twice.
    parts_presence = True
    faults = Faults(lost=0.05, doubled=0.05, late=0.3, seconds=2)

    async def begin(self) -> None:
        self.faults.begin(self.site.faults)

    async def end(self) -> None:
        self.site.faults.unlink(missing_ok=True)


class LayerDeaf(LayerFails):
    """Processes do not hear each other at all."""

    faults = Faults(lost=1)


def nemeses_of(site: Site) -> list[Callable[[Site, random.Random], Nemesis]]:
    """Everything that can be done to this site, with what is likeliest in it more than once."""
    return [
        *(Kill, Kill, Kill, Terminate, LayerFails, DatabaseLocked),
        *((RedisDies, RedisFreezes) if site.has_own_redis else (LayerDeaf,)),
        *((DatabaseCut,) if site.ground.database == "postgres" else ()),
        *((Roll,) if site.together else ()),
    ]
