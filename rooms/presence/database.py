"""Presence in the database: for any number of processes that share nothing else.

A change of a group holds the lock of its row (``operations.py``), so that two processes never both see a
user as the first to enter or the last to leave. Concurrent changes of a group in this process share a
transaction (``concurrency/batching.py``). Leases use the database's clock (``expiry.py``).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from rooms.concurrency.batching import Batcher, Entry
from rooms.concurrency.thread_pool import DATABASE_UNAVAILABLE, ThreadPool
from rooms.concurrency.timeouts import STATEMENT_TIMEOUT
from rooms.presence import expiry, operations, queries
from rooms.presence.base import Arrival, Departure, GroupClosed, MemberPage, Presence
from rooms.presence.lease import Lease
from rooms.presence.operations import Add, Change, Close, Remove, StartGrace
from rooms.protocol.types import User

# The number of heartbeats after which unused rows are deleted.
TIDY_EVERY = 100
# The number of connections that are registered again at a time.
CHUNK = 500
# A transaction holds at most this number of changes: meanwhile it holds the group's lock.
MAX_CHANGES = 200
# More than this number of changes would wait too long.
MAX_PENDING = 8192


class DatabasePresence(Presence):
    """Writes and reads with ``threads`` threads each; ``queue`` reads may wait."""

    def __init__(self, *, threads: int = 2, queue: int = 256) -> None:
        super().__init__()
        # Without a timeout: the next change of a group waits for the end of the one before.
        self._writing = ThreadPool(threads, 0, "rooms-presence")
        self._reading = ThreadPool(threads, queue, "rooms-presence-reading", timeout=STATEMENT_TIMEOUT)
        # The lease has its own thread: it must not wait during a join burst.
        self._leasing = ThreadPool(1, queue, "rooms-presence-lease", timeout=STATEMENT_TIMEOUT)
        self._changes: Batcher[Change] = Batcher(
            self._write,
            key=attrgetter("group"),
            max_items=MAX_CHANGES,
            max_pending=MAX_PENDING,
            max_writes=threads,
            timeout=STATEMENT_TIMEOUT,
            timeout_per_write=True,
            unavailable=DATABASE_UNAVAILABLE,
        )
        # The connections of this process, to register them again if its lease expired.
        self._connections: dict[tuple[str, str], User] = {}
        # Groups and ids of users that may have been removed without a result.
        self._unreported: set[tuple[str, str]] = set()
        self._unsynced: set[tuple[str, str]] = set()
        self._lease = Lease()
        self._beginning: asyncio.Task[None] | None = None
        self._heartbeats = 0
        self._sweeping = threading.Lock()
        # Departures and arrivals that the next heartbeat returns, also those of an interrupted sweep.
        self._found: list[Departure | Arrival] = []

    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        if not self._lease.begun:
            await self._begin_lease()
        first: bool = await self._changes.call(Add(group, self.node, connection, user, limit, unique))
        self._connections[group, connection] = user
        return first

    async def start_grace(self, group: str, connection: str, user: User) -> None:
        await self._changes.call(StartGrace(group, connection, user))

    async def remove(self, group: str, connection: str, user: User) -> bool:
        return bool(await self.remove_all(group, {connection: user}))

    async def remove_all(self, group: str, connections: Mapping[str, User]) -> list[User]:
        every = list(connections.items())
        known = [user.id for each, user in every if self._connections.pop((group, each), None) is not None]
        try:
            removals = [self._changes.call(Remove(group, connection, user)) for connection, user in every]
            results = await asyncio.gather(*removals)
        except BaseException:
            # The removal may have been done nevertheless; the caller repeats it.
            self._unreported.update((group, id) for id in known)
            raise
        out = {
            user.id: user
            for (_, user), result in zip(every, results, strict=True)
            if result == "out" or (result == "absent" and (group, user.id) in self._unreported)
        }
        self._unreported.difference_update((group, user.id) for user in connections.values())
        return list(out.values())

    async def members(self, group: str, *, after: str | None = None, limit: int | None = None) -> MemberPage:
        return await self._reading.run(queries.members, group, after, limit)

    async def counts(self, groups: Sequence[str]) -> list[int]:
        found = await self._reading.run(queries.counts, groups)
        return [found.get(group, 0) for group in groups]

    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        return await self._reading.run(queries.find, group, list(user_names))

    async def close_group(self, group: str) -> bool:
        closed: bool = await self._changes.call(Close(group))
        return closed

    async def heartbeat(self) -> list[Departure | Arrival]:
        await self._renew()
        if self._lease.may_sweep():
            await self._reading.run(self._sweep)
        self._heartbeats += 1
        if self._heartbeats % TIDY_EVERY == 0:
            await self._reading.run(expiry.tidy)
        found = self._found[:]
        del self._found[: len(found)]
        return found

    async def expire_node(self, node: str, seconds: float) -> None:
        await self._leasing.run(expiry.expire_node, node, seconds)

    async def close(self) -> None:
        await self._changes.drain()
        for pool in (self._writing, self._reading, self._leasing):
            await asyncio.to_thread(pool.close)

    async def _write(self, entries: Sequence[Entry[Change]]) -> list[Any]:
        return await self._writing.run(operations.apply_changes, entries[0].item.group, entries)

    def _sweep(self) -> None:
        """Sweep expired processes, in a thread, unless an earlier sweep is still running."""
        if self._sweeping.acquire(blocking=False):
            try:
                expiry.sweep(self._found.append)
            finally:
                self._sweeping.release()

    async def _begin_lease(self) -> None:
        """Begin the lease, once for any number of concurrent callers."""
        if self._beginning is None or self._beginning.done():
            self._beginning = asyncio.create_task(self._renew())
        await asyncio.shield(self._beginning)

    async def _renew(self) -> None:
        begun = self._lease.begun
        state, left = await self._leasing.run(expiry.renew, self.node)
        if state == "swept":
            # The connections of this process are being removed; a later heartbeat registers them again.
            return
        if state == "begun" and begun:
            self._unsynced.update(self._connections)
        self._lease.renew(left)
        await self._resync()

    async def _resync(self) -> None:
        """Register connections again; if interrupted, the next heartbeat continues."""
        unsynced = list(self._unsynced)
        for begin in range(0, len(unsynced), CHUNK):
            await asyncio.gather(
                *(self._resync_connection(*each) for each in unsynced[begin : begin + CHUNK])
            )

    async def _resync_connection(self, group: str, connection: str) -> None:
        user = self._connections.get((group, connection))
        if user is not None:
            # A removal from now on comes after this change.
            try:
                first = await self._changes.call(Add(group, self.node, connection, user))
            except GroupClosed:
                first = False
            if first:
                self._found.append(Arrival(group, user))
        self._unsynced.discard((group, connection))
