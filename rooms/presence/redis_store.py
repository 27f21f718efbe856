"""What is said about presence in a Redis, for any number of processes that share one.

Keys, all below one prefix: ``u:<group>`` the users of a group, ``o:<group>`` their order,
``c:<group>:<user>`` a user's connections there and the process of each, ``node:<process>`` what a process has
said, ``nodes`` until when each process's lease runs, ``dead`` those that are being swept, ``closed:<group>``
that nobody is let in any more, ``swept:<process>`` that it was swept.

The scripts change them in one step, so that two processes never both see somebody as the first one in or
the last one out. Every method raises Unavailable when Redis does not answer in time; whether it did what was
asked is then unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from rooms.presence import lua
from rooms.presence.base import (
    BEAT_SECONDS,
    LEASE_SECONDS,
    Departure,
    GroupClosed,
    GroupFull,
    MemberPage,
    NameInUse,
    place_of,
    places_of,
)
from rooms.protocol.errors import Unavailable
from rooms.protocol.types import User

logger = logging.getLogger("rooms.presence")

STATEMENT_TIMEOUT = 2
SWEEP_SECONDS = 10
# A process that was taken for dead may find out after so many seconds.
SWEPT_SECONDS = 24 * 3600
CONNECTIONS = 32
CHUNK = 500


class RedisStore:
    """``node``: the process that asks; ``url``: of the Redis; ``prefix``: of its keys."""

    def __init__(self, node: str, url: str, prefix: str) -> None:
        self._node = node
        self._prefix = prefix
        # Callers wait for a connection when all are taken, rather than fail.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=STATEMENT_TIMEOUT,
            decode_responses=True,
            socket_timeout=STATEMENT_TIMEOUT,
            socket_connect_timeout=STATEMENT_TIMEOUT,
            # Who asks knows better what to do meanwhile.
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Redis = Redis.from_pool(pool)
        register = self._redis.register_script
        self._add, self._fade, self._remove = (register(each) for each in (lua.ADD, lua.FADE, lua.REMOVE))
        self._page, self._find = register(lua.PAGE), register(lua.FIND)
        self._close = register(lua.CLOSE)
        self._renew, self._ended = register(lua.RENEW), register(lua.ENDED)
        self._bury = register(lua.BURY)

    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        place = place_of(user)
        words: list[str | bytes | int] = [user.id, msgspec.json.encode((place, user)), place]
        words += [*places_of(user.name), connection, self._node, _entry(group, connection, user)]
        words += [-1 if limit is None else limit, int(unique)]
        keys = [*self._keys(self._node, group, user), self._key("closed", group)]
        answer = await _answered(self._add(keys=keys, args=words))
        if answer == "taken":
            raise NameInUse
        if answer == "closed":
            raise GroupClosed
        if answer == "full":
            raise GroupFull
        return bool(answer == "first")

    async def start_grace(self, group: str, connection: str, user: User) -> None:
        await _answered(self._fade(keys=[self._key("c", group, user.id)], args=[connection]))

    async def remove_all(self, group: str, connections: Mapping[str, User]) -> list[User]:
        every = list(connections.items())
        out: list[User] = []
        for begin in range(0, len(every), CHUNK):
            chunk = [(group, *each) for each in every[begin : begin + CHUNK]]
            out += [user for _, user in await self._remove_chunk(self._node, chunk)]
        return out

    async def members(self, group: str, after: str | None, limit: int | None) -> MemberPage:
        begin = "-" if after is None else f"[{places_of(after)[1]}"
        keys = [self._key("o", group), self._key("u", group)]
        most = -1 if limit is None else limit + 1
        count, *found = await _answered(self._page(keys=keys, args=[begin, most]))
        users = [_user(each) for each in found[:limit]]
        return MemberPage(users=users, count=count, more=len(users) < len(found))

    async def counts(self, groups: Sequence[str]) -> list[int]:
        # A pipeline that is left without its end would keep its connection.
        async with self._redis.pipeline(transaction=False) as pipeline:
            for group in groups:
                pipeline.hlen(self._key("u", group))
            return cast("list[int]", await _answered(pipeline.execute()))

    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        wanted = list(user_names)
        keys = [self._key("o", group), self._key("u", group)]
        places = [place for name in wanted for place in places_of(name)]
        found = await _answered(self._find(keys=keys, args=places))
        return {name: _user(each) for name, each in zip(wanted, found, strict=True) if each}

    async def close_group(self, group: str) -> bool:
        keys = [self._key("u", group), self._key("closed", group)]
        return bool(await _answered(self._close(keys=keys, args=[LEASE_SECONDS])))

    # Leases ------------------------------------------------------------------------------------------

    async def renew(self) -> tuple[str, float | None]:
        """Renew the lease, and for how many seconds the old one still ran: ``kept``, ``begun`` where there
        was none, ``swept`` where the process was taken for dead, and everything that it said is being taken
        out."""
        args = (self._node, LEASE_SECONDS, BEAT_SECONDS)
        state, *left = await _answered(self._renew(keys=self._leases(), args=args))
        return state, float(left[0]) if left else None

    async def expire_node(self, node: str, seconds: float) -> None:
        await _answered(self._bury(keys=self._leases(), args=[node, seconds]))

    async def ended(self) -> list[str]:
        """Processes whose lease is over, for this one to sweep."""
        return cast("list[str]", await _answered(self._ended(keys=self._leases(), args=[SWEEP_SECONDS])))

    async def sweep(self, node: str, found: Callable[[Departure], None]) -> None:
        """Take out everybody whom a dead process left behind; who is out thereby is ``found``."""
        entries = await self.said(node)
        for begin in range(0, len(entries), CHUNK):
            for group, user in await self._remove_chunk(node, entries[begin : begin + CHUNK], swept=node):
                found(Departure(group, user))
        # Before its end, after which that process says everything again.
        await _answered(self._redis.set(self._key("swept", node), 1, ex=SWEPT_SECONDS))
        await _answered(cast("Any", self._redis.zrem(self._key("dead"), node)))

    async def was_swept(self, node: str) -> bool:
        """Whether others were told that everybody of that process is gone."""
        return bool(await _answered(self._redis.exists(self._key("swept", node))))

    async def forget_sweep(self, node: str) -> None:
        await _answered(self._redis.delete(self._key("swept", node)))

    async def said(self, node: str) -> list[tuple[str, str, User]]:
        """Groups, connections and users, as that process has said them."""
        key = self._key("node", node)
        found = []
        for entry in await _answered(cast("Any", self._redis.smembers(key))):
            try:
                found.append(msgspec.json.decode(entry, type=tuple[str, str, User]))
            except msgspec.MsgspecError:
                # It must not keep the others from being taken out.
                logger.exception("Presence in Redis holds what nobody says: %.200s", entry)
                await _answered(cast("Any", self._redis.srem(key, entry)))
        return found

    async def close(self) -> None:
        await self._redis.aclose()

    async def _remove_chunk(
        self, node: str, entries: Sequence[tuple[str, str, User]], *, swept: str = ""
    ) -> list[tuple[str, User]]:
        """The groups and the users who are out of them."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for group, connection, user in entries:
                keys = [*self._keys(node, group, user), self._key("dead")]
                words = (user.id, connection, _entry(group, connection, user), swept)
                await self._remove(keys=keys, args=words, client=pipeline)
            out = await _answered(pipeline.execute()) if entries else []
        return [(group, user) for (group, _, user), gone in zip(entries, out, strict=True) if gone]

    def _keys(self, node: str, group: str, user: User) -> list[str]:
        of_user = self._key("c", group, user.id)
        return [self._key("u", group), self._key("o", group), of_user, self._key("node", node)]

    def _leases(self) -> list[str]:
        return [self._key("nodes"), self._key("dead")]

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


def _entry(group: str, connection: str, user: User) -> bytes:
    """How a process notes what it has said."""
    return msgspec.json.encode((group, connection, user))


def _user(kept: str) -> User:
    return msgspec.json.decode(kept, type=tuple[str, User])[1]


async def _answered(answer: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(STATEMENT_TIMEOUT):
            return await answer
    except (RedisError, OSError) as error:
        raise Unavailable("Presence is not available; try again in a moment.") from error
