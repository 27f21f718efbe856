"""Presence in the database: for any number of processes that share nothing else.

What is done to a group is done under the lock of its row (``rows.py``), so that two processes
never both see somebody as the first one in or the last one out. Leases run by the database's clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from rooms.errors import Unavailable
from rooms.events import User
from rooms.presence import rows
from rooms.presence.base import Departure, GroupClosed, MemberPage, Presence
from rooms.presence.lease import Lease
from rooms.threads import Pool

logger = logging.getLogger("rooms.presence")

# What is no more needed is deleted once in so many beats.
TIDY_EVERY = 100


class DatabasePresence(Presence):
    """``threads`` that ask the database, and how many jobs may wait for one."""

    def __init__(self, *, threads: int = 4, queue: int = 256) -> None:
        super().__init__()
        self._pool = Pool(threads, queue, "rooms-presence")
        # What this process has said, to say it again when others took it for dead.
        self._said: dict[tuple[str, str], User] = {}
        self._lease = Lease()
        self._beats = 0
        # Whom a sweep that did not come to its end has found, until a beat tells.
        self._found: list[Departure] = []

    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        if not self._lease.begun:
            await self._renew()
        first = await self._pool.run(
            partial(rows.add, self.node, group, connection, user, limit=limit, unique=unique)
        )
        self._said[group, connection] = user
        return first

    async def fade(self, group: str, connection: str, user: User) -> None:
        await self._pool.run(rows.fade, group, connection, user)

    async def remove(self, group: str, connection: str, user: User) -> bool:
        return bool(await self.remove_all(group, {connection: user}))

    async def remove_all(self, group: str, connections: Mapping[str, User]) -> list[User]:
        for connection in connections:
            self._said.pop((group, connection), None)
        return await self._pool.run(rows.remove, group, connections)

    async def members(self, group: str, *, after: str | None = None, limit: int | None = None) -> MemberPage:
        return await self._pool.run(rows.members, group, after, limit)

    async def counts(self, groups: Sequence[str]) -> list[int]:
        found = await self._pool.run(rows.counts, groups)
        return [found.get(group, 0) for group in groups]

    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        return await self._pool.run(rows.find, group, list(user_names))

    async def close_group(self, group: str) -> bool:
        return await self._pool.run(rows.close_group, group)

    async def take_turn(self, group: str, user: User, token: str) -> bool:
        return await self._pool.run(rows.take_turn, group, user, token)

    async def end_turn(self, group: str, user: User, token: str) -> None:
        try:
            await self._pool.run(rows.end_turn, group, user, token)
        except Unavailable as error:
            logger.warning("A turn is left to run out: %s", error.message)

    async def beat(self) -> list[Departure]:
        await self._renew()
        if self._lease.may_sweep():
            await self._pool.run(rows.sweep, self._found.append)
        self._beats += 1
        if self._beats % TIDY_EVERY == 0:
            await self._pool.run(rows.tidy)
        found = self._found[:]
        del self._found[: len(found)]
        return found

    async def bury(self, node: str, seconds: float) -> None:
        await self._pool.run(rows.bury, node, seconds)

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.close)

    async def _renew(self) -> None:
        begun = self._lease.begun
        state = await self._pool.run(rows.renew, self.node)
        if state == "swept":
            # What this process said is being taken out; with a later beat it is said again.
            return
        if state == "begun" and begun:
            await self._say_again()
        self._lease.renew()

    async def _say_again(self) -> None:
        for (group, connection), user in list(self._said.items()):
            if (group, connection) not in self._said:
                continue
            try:
                await self._pool.run(rows.add, self.node, group, connection, user)
            except GroupClosed:
                continue
            if (group, connection) not in self._said:
                # Removed while we said it.
                await self._pool.run(rows.remove, group, {connection: user})
