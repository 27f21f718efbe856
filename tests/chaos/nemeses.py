"""Nemeses: each starts one kind of fault at a site and ends it again."""

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
    """A fault between ``begin`` and ``end``; it usually lasts for ``seconds``."""

    seconds = 0.0
    splits_presence = False
    """Whether processes cannot share presence meanwhile."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self.site = site
        self.chance = chance

    @property
    def name(self) -> str:
        return type(self).__name__

    @abstractmethod
    async def begin(self) -> None: ...

    async def end(self) -> None:  # noqa: B027 (not every fault has to be ended)
        """End the fault."""


class _WorkerEnds(Nemesis):
    seconds = 1.0
    signal: signal.Signals

    async def begin(self) -> None:
        self.server = self.site.end_worker(self.chance, self.signal)

    async def end(self) -> None:
        if self.server is not None:
            await asyncio.to_thread(self.server.restart)


class Kill(_WorkerEnds):
    """A worker is killed."""

    signal = signal.SIGKILL


class Terminate(_WorkerEnds):
    """A worker is terminated, as in a deploy."""

    signal = signal.SIGTERM


class Roll(Nemesis):
    """The supervisor replaces all workers, one after the other."""

    seconds = 5.0

    async def begin(self) -> None:
        self.site.roll()


class RedisDies(Nemesis):
    """Redis is killed and starts again, empty."""

    splits_presence = True
    seconds = 3.0

    async def begin(self) -> None:
        assert self.site.redis is not None
        await asyncio.to_thread(self.site.redis.stop, signal.SIGKILL)

    async def end(self) -> None:
        assert self.site.redis is not None
        await asyncio.to_thread(self.site.redis.launch)


class RedisFreezes(Nemesis):
    """Redis accepts commands and does not answer."""

    splits_presence = True
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
    """Another connection holds the locks that each message needs."""

    seconds = 4.0

    async def begin(self) -> None:
        self._open = contextlib.ExitStack()
        await asyncio.to_thread(self._lock, self._open.enter_context(self.site.database()))

    def _lock(self, connection: Any) -> None:
        if self.site.backends.database == "sqlite":
            connection.execute("BEGIN IMMEDIATE")
        else:
            connection.execute("BEGIN")
            connection.execute("LOCK TABLE rooms_sequence, rooms_message IN EXCLUSIVE MODE")

    async def end(self) -> None:
        # The close of the connection rolls back.
        self._open.close()


class DatabaseCut(Nemesis):
    """PostgreSQL closes all connections."""

    async def begin(self) -> None:
        with self.site.database() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


class LayerFails(Nemesis):
    """Messages between processes are lost, doubled, late and out of order."""

    seconds = 6.0
    # Presence events have no numbers: a doubled one is received twice.
    splits_presence = True
    faults = Faults(lost=0.05, doubled=0.05, late=0.3, seconds=2)

    async def begin(self) -> None:
        self.faults.begin(self.site.faults)

    async def end(self) -> None:
        self.site.faults.unlink(missing_ok=True)


class LayerLosesAll(LayerFails):
    """All messages between processes are lost."""

    faults = Faults(lost=1)


def nemeses_of(site: Site) -> list[Callable[[Site, random.Random], Nemesis]]:
    """Return the nemeses for this site, the likeliest several times."""
    return [
        *(Kill, Kill, Kill, Terminate, LayerFails, DatabaseLocked),
        *((RedisDies, RedisFreezes) if site.has_own_redis else (LayerLosesAll,)),
        *((DatabaseCut,) if site.backends.database == "postgres" else ()),
        *((Roll,) if site.together else ()),
    ]
