"""The data of presence in Redis, for any number of processes.

Keys, all below one prefix: ``u:<group>`` the users of a group, ``o:<group>`` their order,
``c:<group>:<user>`` a user's connections there and the process of each, ``node:<process>`` the connections
of a process, ``nodes`` the end of each process's lease, ``dead`` the processes that are being swept,
``closed:<group>`` that the group accepts no users, ``swept:<process>`` that the process was swept.

The scripts change them in one step, so that two processes never both see a user as the first to enter or
the last to leave. Every method raises Unavailable when Redis does not answer in time; whether it executed
the call is then unknown.
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
    HEARTBEAT_SECONDS,
    LEASE_TTL,
    Departure,
    GroupClosed,
    GroupFull,
    MemberPage,
    NameInUse,
    sort_range,
    sort_text,
)
from rooms.protocol.errors import Unavailable
from rooms.protocol.types import User

logger = logging.getLogger("rooms.presence")

STATEMENT_TIMEOUT = 2
SWEEP_SECONDS = 10
# A process whose lease expired may notice that within this time.
SWEPT_TTL = 24 * 3600
CONNECTIONS = 32
CHUNK = 500


class RedisStore:
    """Reads and writes keys with ``prefix`` in Redis, for the process ``node``."""

    def __init__(self, node: str, url: str, prefix: str) -> None:
        self._node = node
        self._prefix = prefix
        # A blocking pool: callers wait for a connection when all are in use.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=STATEMENT_TIMEOUT,
            decode_responses=True,
            socket_timeout=STATEMENT_TIMEOUT,
            socket_connect_timeout=STATEMENT_TIMEOUT,
            # The caller has a local copy to use meanwhile.
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Redis = Redis.from_pool(pool)
        register = self._redis.register_script
        self._add, self._start_grace, self._remove = (
            register(each) for each in (lua.ADD, lua.START_GRACE, lua.REMOVE)
        )
        self._page, self._find = register(lua.PAGE), register(lua.FIND)
        self._close = register(lua.CLOSE)
        self._renew, self._expired = register(lua.RENEW), register(lua.EXPIRED)
        self._expire = register(lua.EXPIRE)

    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        text = sort_text(user)
        arguments: list[str | bytes | int] = [user.id, msgspec.json.encode((text, user)), text]
        arguments += [*sort_range(user.name), connection, self._node, _entry(group, connection, user)]
        arguments += [-1 if limit is None else limit, int(unique)]
        keys = [*self._keys(self._node, group, user), self._key("closed", group)]
        reply = await _reply(self._add(keys=keys, args=arguments))
        if reply == "name_in_use":
            raise NameInUse
        if reply == "closed":
            raise GroupClosed
        if reply == "full":
            raise GroupFull
        return bool(reply == "first")

    async def start_grace(self, group: str, connection: str, user: User) -> None:
        await _reply(self._start_grace(keys=[self._key("c", group, user.id)], args=[connection]))

    async def remove_all(self, group: str, connections: Mapping[str, User]) -> list[User]:
        every = list(connections.items())
        out: list[User] = []
        for begin in range(0, len(every), CHUNK):
            chunk = [(group, *each) for each in every[begin : begin + CHUNK]]
            out += [user for _, user in await self._remove_chunk(self._node, chunk)]
        return out

    async def members(self, group: str, after: str | None, limit: int | None) -> MemberPage:
        begin = "-" if after is None else f"[{sort_range(after)[1]}"
        keys = [self._key("o", group), self._key("u", group)]
        max_users = -1 if limit is None else limit + 1
        count, *found = await _reply(self._page(keys=keys, args=[begin, max_users]))
        users = [_user(each) for each in found[:limit]]
        return MemberPage(users=users, count=count, more=len(users) < len(found))

    async def counts(self, groups: Sequence[str]) -> list[int]:
        # Without ``async with``, a cancelled pipeline would keep its connection.
        async with self._redis.pipeline(transaction=False) as pipeline:
            for group in groups:
                pipeline.hlen(self._key("u", group))
            return cast("list[int]", await _reply(pipeline.execute()))

    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        wanted = list(user_names)
        keys = [self._key("o", group), self._key("u", group)]
        texts = [text for name in wanted for text in sort_range(name)]
        found = await _reply(self._find(keys=keys, args=texts))
        return {name: _user(each) for name, each in zip(wanted, found, strict=True) if each}

    async def close_group(self, group: str) -> bool:
        keys = [self._key("u", group), self._key("closed", group)]
        return bool(await _reply(self._close(keys=keys, args=[LEASE_TTL])))

    # Leases ------------------------------------------------------------------------------------------

    async def renew(self) -> tuple[str, float | None]:
        """Renew the lease, and return the seconds that the old one still had.

        ``kept``: renewed; ``begun``: there was none; ``swept``: it had expired, and the connections of the
        process are being removed.
        """
        args = (self._node, LEASE_TTL, HEARTBEAT_SECONDS)
        state, *left = await _reply(self._renew(keys=self._leases(), args=args))
        return state, float(left[0]) if left else None

    async def expire_node(self, node: str, seconds: float) -> None:
        await _reply(self._expire(keys=self._leases(), args=[node, seconds]))

    async def expired_nodes(self) -> list[str]:
        """Return processes whose lease expired, for this one to sweep."""
        return cast("list[str]", await _reply(self._expired(keys=self._leases(), args=[SWEEP_SECONDS])))

    async def sweep(self, node: str, found: Callable[[Departure], None]) -> None:
        """Remove the connections of an expired process; report the departures.

        ``found`` is called with each departure.
        """
        entries = await self.entries(node)
        for begin in range(0, len(entries), CHUNK):
            for group, user in await self._remove_chunk(node, entries[begin : begin + CHUNK], swept=node):
                found(Departure(group, user))
        # Before the end of the sweep, after which that process registers its connections again.
        await _reply(self._redis.set(self._key("swept", node), 1, ex=SWEPT_TTL))
        await _reply(cast("Any", self._redis.zrem(self._key("dead"), node)))

    async def was_swept(self, node: str) -> bool:
        """Return whether other processes reported the users of a process as departed."""
        return bool(await _reply(self._redis.exists(self._key("swept", node))))

    async def forget_sweep(self, node: str) -> None:
        await _reply(self._redis.delete(self._key("swept", node)))

    async def entries(self, node: str) -> list[tuple[str, str, User]]:
        """Return the groups, connections and users of a process."""
        key = self._key("node", node)
        found = []
        for entry in await _reply(cast("Any", self._redis.smembers(key))):
            try:
                found.append(msgspec.json.decode(entry, type=tuple[str, str, User]))
            except msgspec.MsgspecError:
                # The other entries must be read nevertheless.
                logger.exception("Removed an invalid presence entry from Redis: %.200s", entry)
                await _reply(cast("Any", self._redis.srem(key, entry)))
        return found

    async def close(self) -> None:
        await self._redis.aclose()

    async def _remove_chunk(
        self, node: str, entries: Sequence[tuple[str, str, User]], *, swept: str = ""
    ) -> list[tuple[str, User]]:
        """Remove connections, and return the users that left a group with it."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for group, connection, user in entries:
                keys = [*self._keys(node, group, user), self._key("dead")]
                arguments = (user.id, connection, _entry(group, connection, user), swept)
                await self._remove(keys=keys, args=arguments, client=pipeline)
            replies = await _reply(pipeline.execute()) if entries else []
        return [(group, user) for (group, _, user), out in zip(entries, replies, strict=True) if out]

    def _keys(self, node: str, group: str, user: User) -> list[str]:
        of_user = self._key("c", group, user.id)
        return [self._key("u", group), self._key("o", group), of_user, self._key("node", node)]

    def _leases(self) -> list[str]:
        return [self._key("nodes"), self._key("dead")]

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


def _entry(group: str, connection: str, user: User) -> bytes:
    """Encode a connection of a process."""
    return msgspec.json.encode((group, connection, user))


def _user(stored: str) -> User:
    return msgspec.json.decode(stored, type=tuple[str, User])[1]


async def _reply(reply: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(STATEMENT_TIMEOUT):
            return await reply
    except (RedisError, OSError) as error:
        raise Unavailable("Presence is not available; try again in a moment.") from error
