"""Presence in Redis: for any number of processes that share one Redis.

A process has a local copy of its own connections in memory. While Redis does not answer, the copy does, so
users still join and leave, as far as this process sees them. When Redis is back, the differences are written
to it (``redis_store.py``): the joins and leaves since, or everything, if Redis lost its data or the lease of
this process had expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from rooms.presence.base import Arrival, Departure, GroupClosed, MemberPage, Presence
from rooms.presence.lease import Lease
from rooms.presence.memory import MemoryPresence
from rooms.presence.redis_store import RedisStore
from rooms.protocol.errors import Unavailable
from rooms.protocol.types import User

logger = logging.getLogger("rooms.presence")
T = TypeVar("T")

# The interval between attempts to reach Redis during an outage.
PAUSE_SECONDS = 1.0
# The number of connections that are written again at a time.
CHUNK = 16
# The first heartbeats after an outage compare the local copy with Redis, then every twelfth does.
CHECKED_HEARTBEATS = 4
COMPARE_EVERY = 12


class RedisPresence(Presence):
    """Stores presence in the Redis at ``url``, in keys with ``prefix``."""

    def __init__(self, *, url: str, prefix: str = "rooms") -> None:
        super().__init__()
        self._store = RedisStore(self.node, url, prefix)
        self._local = MemoryPresence()
        self._lease = Lease()
        # In a process without connections, the local copy is no substitute for Redis.
        self._serves = False
        # Runs during an outage of Redis, until all is written again; and the number of outages.
        self._resyncing: asyncio.Task[None] | None = None
        self._outages = 0
        # Groups, connections and users in which the local copy and Redis may differ.
        self._differing: set[tuple[str, str, User]] = set()
        # What differed at the last comparison without an outage, and the number of heartbeats since one.
        self._suspects: set[tuple[str, str, User]] = set()
        self._heartbeats = 0
        # Departures and arrivals that the next heartbeat returns.
        self._found: list[Departure | Arrival] = []
        # During a resync: whether other processes reported the users of this one as departed.
        self._swept = False

    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        self._serves = True
        outages = self._outages
        try:
            if not self._lease.begun:
                await self._call(self._renew)
            first = await self._call(self._store.add, group, connection, user, limit=limit, unique=unique)
        except Unavailable:
            self._differing.add((group, connection, user))
            return await self._local.add(group, connection, user, limit=limit, unique=unique)
        await self._local.add(group, connection, user)
        self._was_offline_since(outages, group, {connection: user})
        return first

    async def start_grace(self, group: str, connection: str, user: User) -> None:
        await self._local.start_grace(group, connection, user)
        try:
            await self._call(self._store.start_grace, group, connection, user)
        except Unavailable:
            self._differing.add((group, connection, user))

    async def remove(self, group: str, connection: str, user: User) -> bool:
        return bool(await self.remove_all(group, {connection: user}))

    async def remove_all(self, group: str, connections: Mapping[str, User]) -> list[User]:
        outages = self._outages
        out_here = await self._local.remove_all(group, connections)
        try:
            out = await self._call(self._store.remove_all, group, connections)
        except Unavailable:
            self._differing.update((group, *each) for each in connections.items())
            return out_here
        # A resync meanwhile may have removed them before.
        return list({*out, *out_here}) if self._was_offline_since(outages, group, connections) else out

    async def members(self, group: str, *, after: str | None = None, limit: int | None = None) -> MemberPage:
        return await self._call_or_local(
            lambda: self._store.members(group, after, limit),
            lambda: self._local.members(group, after=after, limit=limit),
        )

    async def counts(self, groups: Sequence[str]) -> list[int]:
        return await self._call_or_local(
            lambda: self._store.counts(groups), lambda: self._local.counts(groups)
        )

    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        wanted = list(user_names)
        return await self._call_or_local(
            lambda: self._store.find(group, wanted), lambda: self._local.find(group, wanted)
        )

    async def close_group(self, group: str) -> bool:
        try:
            return await self._call(self._store.close_group, group)
        except Unavailable:
            # The group may have users in another process.
            return False

    async def heartbeat(self) -> list[Departure | Arrival]:
        self._serves = True
        with contextlib.suppress(Unavailable):
            await self._call(self._renew)
            if self._resyncing is None and self._lease.may_sweep():
                for node in await self._call(self._store.expired_nodes):
                    await self._call(self._store.sweep, node, self._note)
            await self._compare()
        found, self._found = self._found, []
        return found

    def _note(self, departure: Departure) -> None:
        self._found.append(departure)

    async def expire_node(self, node: str, seconds: float) -> None:
        await self._call(self._store.expire_node, node, seconds)

    async def close(self) -> None:
        if self._resyncing is not None:
            self._resyncing.cancel()
            await asyncio.wait([self._resyncing])
        await self._store.close()

    # Outages of Redis ----------------------------------------------------------------------------------

    async def _call(self, method: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> T:
        """Call a method of the store. Raises Unavailable, at once during an outage."""
        if self._resyncing is not None:
            raise Unavailable("Presence is not available; try again in a moment.")
        try:
            return await method(*arguments, **options)
        except Unavailable:
            self._go_offline()
            raise

    async def _call_or_local(
        self, call: Callable[[], Awaitable[T]], call_local: Callable[[], Awaitable[T]]
    ) -> T:
        """Return the result of Redis, or that of the local copy during an outage."""
        try:
            return await self._call(call)
        except Unavailable:
            if not self._serves:
                raise
            return await call_local()

    def _was_offline_since(self, outages: int, group: str, connections: Mapping[str, User]) -> bool:
        """Return whether an outage began since, and have the connections compared."""
        if outages == self._outages:
            return False
        self._differing.update((group, *each) for each in connections.items())
        self._go_offline()
        return True

    def _go_offline(self) -> None:
        """Use the local copy until all is written to Redis again."""
        if self._resyncing is None and self._serves:
            self._outages += 1
            self._resyncing = asyncio.create_task(self._resync_until_done())

    async def _resync_until_done(self) -> None:
        failures = 0
        while True:
            try:
                await self._resync()
                break
            except Unavailable:
                failures += 1
                if failures == 1:
                    logger.warning("Redis does not answer; presence is limited to this process.")
            except Exception:
                logger.exception("The presence of this process could not be written to Redis again.")
            await asyncio.sleep(PAUSE_SECONDS)
        if failures:
            logger.warning("Redis answers again; presence is complete.")
        # No await since the last comparison.
        self._heartbeats = 0
        self._resyncing = None

    async def _resync(self) -> None:
        store = self._store
        state, left = await store.renew()
        if state == "swept":
            # Ended here, so that no other process continues it after the resync. No user departed.
            await store.sweep(self.node, lambda _: None)
            _, left = await store.renew()
        self._lease.renew(left)
        # If Redis only lost its data, no process reported departures.
        self._swept = await store.was_swept(self.node)
        self._differing |= await self._differences()
        while self._differing:
            chunk = [self._differing.pop() for _ in range(min(CHUNK, len(self._differing)))]
            try:
                await asyncio.gather(*(self._reconcile(*each) for each in chunk))
            except BaseException:
                self._differing.update(chunk)
                raise
        if self._swept:
            await store.forget_sweep(self.node)
            self._swept = False

    async def _differences(self) -> set[tuple[str, str, User]]:
        stored = await self._store.entries(self.node)
        return set(stored).symmetric_difference(self._local.connections())

    async def _compare(self) -> None:
        """Write what differs twice: a frozen Redis executes abandoned calls late."""
        self._heartbeats += 1
        if self._heartbeats > CHECKED_HEARTBEATS and self._heartbeats % COMPARE_EVERY:
            return
        differing = await self._call(self._differences)
        for each in differing & self._suspects:
            await self._call(self._reconcile, *each)
        self._suspects = differing

    async def _reconcile(self, group: str, connection: str, user: User) -> None:
        in_grace = self._local.in_grace(group, connection, user)
        if in_grace is None:
            await self._store.remove_all(group, {connection: user})
            return
        with contextlib.suppress(GroupClosed):
            if await self._store.add(group, connection, user) and self._swept:
                self._found.append(Arrival(group, user))
            if in_grace:
                await self._store.start_grace(group, connection, user)

    async def _renew(self) -> None:
        # Several calls may begin the lease at once, and only the first gets "begun".
        begun = self._lease.begun
        state, left = await self._store.renew()
        if state == "swept" or (state == "begun" and begun):
            # Redis lost its data, or the lease of this process expired.
            self._go_offline()
            raise Unavailable("Presence is not available; try again in a moment.")
        self._lease.renew(left)
