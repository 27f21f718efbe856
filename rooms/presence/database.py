"""Presence in the database: for any number of processes that share nothing else.

What is done to a group is done under the lock of its row (``rows.py``), so that two processes
never both see somebody as the first one in or the last one out. Leases run by the database's clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from rooms.bounds import ANSWER_SECONDS
from rooms.errors import Unavailable
from rooms.events import User
from rooms.presence import rows
from rooms.presence.base import Arrival, Departure, GroupClosed, MemberPage, Presence
from rooms.presence.lease import Lease
from rooms.threads import Pool

logger = logging.getLogger("rooms.presence")
T = TypeVar("T")

# What is no more needed is deleted once in so many beats.
TIDY_EVERY = 100


class DatabasePresence(Presence):
    """``threads`` that ask the database, and how many jobs may wait for one."""

    def __init__(self, *, threads: int = 4, queue: int = 256) -> None:
        super().__init__()
        self._pool = Pool(threads, queue, "rooms-presence", answer_seconds=ANSWER_SECONDS)
        # What this process has said, to say it again when others took it for dead.
        self._said: dict[tuple[str, str], User] = {}
        # Groups and ids of users whom it took out, until somebody is told so.
        self._untold: set[tuple[str, str]] = set()
        self._unsaid: set[tuple[str, str]] = set()
        self._lease = Lease()
        self._beats = 0
        # Whom a sweep that did not come to its end has found, until a beat tells.
        self._found: list[Departure | Arrival] = []

    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        if not self._lease.begun:
            await self._renew()
        add = partial(rows.add, limit=limit, unique=unique)
        first = await self._change(add, self.node, group, connection, user)
        self._said[group, connection] = user
        return first

    async def fade(self, group: str, connection: str, user: User) -> None:
        await self._pool.run(rows.fade, group, connection, user)

    async def remove(self, group: str, connection: str, user: User) -> bool:
        return bool(await self.remove_all(group, {connection: user}))

    async def remove_all(self, group: str, connections: Mapping[str, User]) -> list[User]:
        for connection in connections:
            self._said.pop((group, connection), None)
        out = await self._change(rows.remove, group, connections, self._untold)
        self._untold.difference_update((group, user.id) for user in connections.values())
        return out

    async def members(self, group: str, *, after: str | None = None, limit: int | None = None) -> MemberPage:
        return await self._pool.run(rows.members, group, after, limit)

    async def counts(self, groups: Sequence[str]) -> list[int]:
        found = await self._pool.run(rows.counts, groups)
        return [found.get(group, 0) for group in groups]

    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        return await self._pool.run(rows.find, group, list(user_names))

    async def close_group(self, group: str) -> bool:
        return await self._change(rows.close_group, group)

    async def take_turn(self, group: str, user: User, token: str) -> bool:
        return await self._change(rows.take_turn, group, user, token)

    async def end_turn(self, group: str, user: User, token: str) -> None:
        try:
            await self._pool.run(rows.end_turn, group, user, token)
        except Unavailable as error:
            logger.warning("A turn is left to run out: %s", error.message)

    async def beat(self) -> list[Departure | Arrival]:
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
            self._unsaid.update(self._said)
        self._lease.renew()
        await self._say_again()

    async def _say_again(self) -> None:
        """Whatever keeps it from its end, the next beat goes on with it."""
        for group, connection in list(self._unsaid):
            if (user := self._said.get((group, connection))) is not None:
                await self._say(group, connection, user)
            self._unsaid.discard((group, connection))

    async def _say(self, group: str, connection: str, user: User) -> None:
        try:
            first = await self._change(rows.add, self.node, group, connection, user)
        except GroupClosed:
            return
        if (group, connection) not in self._said:
            # Removed while we said it.
            await self._change(rows.remove, group, {connection: user}, self._untold)
        elif first:
            self._found.append(Arrival(group, user))

    async def _change(self, change: Callable[..., T], *arguments: Any) -> T:
        """What a change of ``rows`` answers. It is not made late when nobody waits for it any more."""
        asked = rows.Asked()
        try:
            return await self._pool.run(change, asked, *arguments)
        except BaseException:
            asked.given_up = True
            raise
