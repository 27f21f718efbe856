"""Presence in Redis: for any number of processes that share one.

A process keeps a twin in memory of what it said itself. While Redis does not answer, the twin does, so that
people go on coming in and going out, as far as this process sees them. When Redis is back, whatever differs
is said to it (``redis_store.py`` is what is said): who came meanwhile, who went, or everything, if it lost
its data or had taken this process for dead.
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

# While Redis is away it is asked again after so many seconds.
PAUSE_SECONDS = 1.0
# Of what is said again, so much at a time.
CHUNK = 16
# What Redis holds of this process is looked at with so many beats after its return, then with one in so many.
WARY_BEATS = 4
COMPARE_EVERY = 12


class RedisPresence(Presence):
    """``url``: of the Redis; ``prefix``: of its keys."""

    def __init__(self, *, url: str, prefix: str = "rooms") -> None:
        super().__init__()
        self._store = RedisStore(self.node, url, prefix)
        self._twin = MemoryPresence()
        self._lease = Lease()
        # Of a process that holds no connections the twin knows nothing.
        self._serves = False
        # While Redis is away, and until all is said again; and how often it was.
        self._returning: asyncio.Task[None] | None = None
        self._absences = 0
        # In what the twin and Redis may differ: groups and connections, with their users.
        self._differing: set[tuple[str, str, User]] = set()
        # What differed at the last look, though Redis was there, and how many beats it has been.
        self._doubtful: set[tuple[str, str, User]] = set()
        self._beats = 0
        # Whom sweeps found to be left behind, and who is here after all, until a beat tells.
        self._found: list[Departure | Arrival] = []
        # While all is said again: whether others were told that everybody here is gone.
        self._swept = False

    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        self._serves = True
        absences = self._absences
        try:
            if not self._lease.begun:
                await self._ask(self._renew)
            first = await self._ask(self._store.add, group, connection, user, limit=limit, unique=unique)
        except Unavailable:
            self._differing.add((group, connection, user))
            return await self._twin.add(group, connection, user, limit=limit, unique=unique)
        await self._twin.add(group, connection, user)
        self._check(absences, group, {connection: user})
        return first

    async def start_grace(self, group: str, connection: str, user: User) -> None:
        await self._twin.start_grace(group, connection, user)
        try:
            await self._ask(self._store.start_grace, group, connection, user)
        except Unavailable:
            self._differing.add((group, connection, user))

    async def remove(self, group: str, connection: str, user: User) -> bool:
        return bool(await self.remove_all(group, {connection: user}))

    async def remove_all(self, group: str, connections: Mapping[str, User]) -> list[User]:
        absences = self._absences
        out_here = await self._twin.remove_all(group, connections)
        try:
            out = await self._ask(self._store.remove_all, group, connections)
        except Unavailable:
            self._differing.update((group, *each) for each in connections.items())
            return out_here
        # What was said again meanwhile may have taken them out before.
        return list({*out, *out_here}) if self._check(absences, group, connections) else out

    async def members(self, group: str, *, after: str | None = None, limit: int | None = None) -> MemberPage:
        return await self._ask_either(
            lambda: self._store.members(group, after, limit),
            lambda: self._twin.members(group, after=after, limit=limit),
        )

    async def counts(self, groups: Sequence[str]) -> list[int]:
        return await self._ask_either(lambda: self._store.counts(groups), lambda: self._twin.counts(groups))

    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        wanted = list(user_names)
        return await self._ask_either(
            lambda: self._store.find(group, wanted), lambda: self._twin.find(group, wanted)
        )

    async def close_group(self, group: str) -> bool:
        try:
            return await self._ask(self._store.close_group, group)
        except Unavailable:
            # Somebody may be in it in another process.
            return False

    async def heartbeat(self) -> list[Departure | Arrival]:
        self._serves = True
        with contextlib.suppress(Unavailable):
            await self._ask(self._renew)
            if self._returning is None and self._lease.may_sweep():
                for node in await self._ask(self._store.ended):
                    await self._ask(self._store.sweep, node, self._note)
            await self._compare()
        found, self._found = self._found, []
        return found

    def _note(self, departure: Departure) -> None:
        self._found.append(departure)

    async def expire_node(self, node: str, seconds: float) -> None:
        await self._ask(self._store.expire_node, node, seconds)

    async def close(self) -> None:
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.wait([self._returning])
        await self._store.close()

    # Redis, and what is said when it is away -----------------------------------------------------------

    async def _ask(self, question: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> T:
        """Redis's answer. Raises Unavailable, at once where it is known to be away."""
        if self._returning is not None:
            raise Unavailable("Presence is not available; try again in a moment.")
        try:
            return await question(*arguments, **options)
        except Unavailable:
            self._leave()
            raise

    async def _ask_either(
        self, question: Callable[[], Awaitable[T]], instead: Callable[[], Awaitable[T]]
    ) -> T:
        """The answer of Redis, or the twin's."""
        try:
            return await self._ask(question)
        except Unavailable:
            if not self._serves:
                raise
            return await instead()

    def _check(self, absences: int, group: str, connections: Mapping[str, User]) -> bool:
        """Whether Redis was away since; then these may have been said again, or not, in a state that is
        over."""
        if absences == self._absences:
            return False
        self._differing.update((group, *each) for each in connections.items())
        self._leave()
        return True

    def _leave(self) -> None:
        """Redis is away, or does not know what it should: until all is said again, the twin answers."""
        if self._returning is None and self._serves:
            self._absences += 1
            self._returning = asyncio.create_task(self._return())

    async def _return(self) -> None:
        tried = 0
        while True:
            try:
                await self._say_again()
                break
            except Unavailable:
                tried += 1
                if tried == 1:
                    logger.warning("Redis does not answer; until it does, presence is what is known here.")
            except Exception:
                logger.exception("What this process knows of presence could not be said again")
            await asyncio.sleep(PAUSE_SECONDS)
        if tried:
            logger.warning("Redis answers again, and knows who is here.")
        # Without an await since the last look at what differs.
        self._beats = 0
        self._returning = None

    async def _say_again(self) -> None:
        store = self._store
        state, left = await store.renew()
        if state == "swept":
            # Others are not to go on with that once all is said again. Nobody is gone.
            await store.sweep(self.node, lambda _: None)
            _, left = await store.renew()
        self._lease.renew(left)
        # Of one that merely lost its data nobody was told anything.
        self._swept = await store.was_swept(self.node)
        self._differing |= await self._differences()
        while self._differing:
            some = [self._differing.pop() for _ in range(min(CHUNK, len(self._differing)))]
            try:
                await asyncio.gather(*(self._settle(*each) for each in some))
            except BaseException:
                self._differing.update(some)
                raise
        if self._swept:
            await store.forget_sweep(self.node)
            self._swept = False

    async def _differences(self) -> set[tuple[str, str, User]]:
        said = await self._store.said(self.node)
        return set(said).symmetric_difference(self._twin.said())

    async def _compare(self) -> None:
        """A frozen Redis does late what nobody waits for. What differs at two looks is said again."""
        self._beats += 1
        if self._beats > WARY_BEATS and self._beats % COMPARE_EVERY:
            return
        differing = await self._ask(self._differences)
        for each in differing & self._doubtful:
            await self._ask(self._settle, *each)
        self._doubtful = differing

    async def _settle(self, group: str, connection: str, user: User) -> None:
        fading = self._twin.fading(group, connection, user)
        if fading is None:
            await self._store.remove_all(group, {connection: user})
            return
        with contextlib.suppress(GroupClosed):
            if await self._store.add(group, connection, user) and self._swept:
                self._found.append(Arrival(group, user))
            if fading:
                await self._store.start_grace(group, connection, user)

    async def _renew(self) -> None:
        # Several may begin it at once, and only the first is told so.
        begun = self._lease.begun
        state, left = await self._store.renew()
        if state == "swept" or (state == "begun" and begun):
            # It lost its data, or others took this process for dead.
            self._leave()
            raise Unavailable("Presence is not available; try again in a moment.")
        self._lease.renew(left)
