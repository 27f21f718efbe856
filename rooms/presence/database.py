"""Presence in the database: for any number of processes that share nothing else.

What is done to a group is done under the lock of its row (``changes.py``), so that two processes never both
see somebody as the first one in or the last one out; what several in this process ask of it at once is done
together (``concurrency/batching.py``). Leases run by the database's clock (``expiry.py``).
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
from rooms.presence.operations import Add, Change, Close, Fade, Remove
from rooms.protocol.types import User

# What is no more needed is deleted once in so many beats.
TIDY_EVERY = 100
# Of what is said again, so much at a time.
CHUNK = 500
# A transaction holds at most this number of changes: meanwhile it holds the group's lock.
MAX_CHANGES = 200
# More than this number of changes would wait too long.
MAX_PENDING = 8192


class DatabasePresence(Presence):
    """``threads`` that change who is where, as many that read it, and how many questions may wait for one."""

    def __init__(self, *, threads: int = 2, queue: int = 256) -> None:
        super().__init__()
        # Without a bound: what follows in a group waits for the end of a change, whenever that is.
        self._writing = ThreadPool(threads, 0, "rooms-presence")
        self._reading = ThreadPool(threads, queue, "rooms-presence-reading", timeout=STATEMENT_TIMEOUT)
        # The lease waits for nobody, whatever crowd there is.
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
        # What this process has said, to say it again when others took it for dead.
        self._said: dict[tuple[str, str], User] = {}
        # Groups and ids of users who may have been taken out without anybody being told so.
        self._untold: set[tuple[str, str]] = set()
        self._unsaid: set[tuple[str, str]] = set()
        self._lease = Lease()
        self._beginning: asyncio.Task[None] | None = None
        self._beats = 0
        self._sweeping = threading.Lock()
        # Whom a sweep that did not come to its end has found, until a beat tells.
        self._found: list[Departure | Arrival] = []

    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        if not self._lease.begun:
            await self._begin()
        first: bool = await self._changes.call(Add(group, self.node, connection, user, limit, unique))
        self._said[group, connection] = user
        return first

    async def start_grace(self, group: str, connection: str, user: User) -> None:
        await self._changes.call(Fade(group, connection, user))

    async def remove(self, group: str, connection: str, user: User) -> bool:
        return bool(await self.remove_all(group, {connection: user}))

    async def remove_all(self, group: str, connections: Mapping[str, User]) -> list[User]:
        every = list(connections.items())
        known = [user.id for each, user in every if self._said.pop((group, each), None) is not None]
        try:
            asked = [self._changes.call(Remove(group, connection, user)) for connection, user in every]
            answers = await asyncio.gather(*asked)
        except BaseException:
            # It may be done all the same, and is asked for again.
            self._untold.update((group, id) for id in known)
            raise
        out = {
            user.id: user
            for (_, user), answer in zip(every, answers, strict=True)
            if answer == "out" or (answer == "absent" and (group, user.id) in self._untold)
        }
        self._untold.difference_update((group, user.id) for user in connections.values())
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
        self._beats += 1
        if self._beats % TIDY_EVERY == 0:
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
        return await self._writing.run(operations.carry_out, entries[0].item.group, entries)

    def _sweep(self) -> None:
        """In a thread. One that takes longer than a beat goes on."""
        if self._sweeping.acquire(blocking=False):
            try:
                expiry.sweep(self._found.append)
            finally:
                self._sweeping.release()

    async def _begin(self) -> None:
        """However many come at first, the lease is asked for once."""
        if self._beginning is None or self._beginning.done():
            self._beginning = asyncio.create_task(self._renew())
        await asyncio.shield(self._beginning)

    async def _renew(self) -> None:
        begun = self._lease.begun
        state, left = await self._leasing.run(expiry.renew, self.node)
        if state == "swept":
            # What this process said is being taken out; with a later beat it is said again.
            return
        if state == "begun" and begun:
            self._unsaid.update(self._said)
        self._lease.renew(left)
        await self._say_again()

    async def _say_again(self) -> None:
        """Whatever keeps it from its end, the next beat goes on with it."""
        unsaid = list(self._unsaid)
        for begin in range(0, len(unsaid), CHUNK):
            await asyncio.gather(*(self._say(*each) for each in unsaid[begin : begin + CHUNK]))

    async def _say(self, group: str, connection: str) -> None:
        user = self._said.get((group, connection))
        if user is not None:
            # Whoever is removed from now on is so after this.
            try:
                first = await self._changes.call(Add(group, self.node, connection, user))
            except GroupClosed:
                first = False
            if first:
                self._found.append(Arrival(group, user))
        self._unsaid.discard((group, connection))
