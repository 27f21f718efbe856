"""Presence in Redis: for any number of processes that share one.

Keys, all below one prefix: ``u:<group>`` the users of a group, ``n:<group>:<name>`` who has
a name, ``c:<group>:<user>`` a user's connections there and the process of each, ``node:<process>`` what a
process has said, ``nodes`` until when each process's lease
runs, ``closed:<group>`` that nobody is let in any more. The scripts change them in one
step, so that two processes never both see somebody as the first one in or the last one out.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, cast

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from rooms import names
from rooms.errors import Unavailable
from rooms.events import User
from rooms.presence.base import (
    LEASE_SECONDS,
    Departure,
    GroupClosed,
    GroupFull,
    MemberPage,
    NameInUse,
    Presence,
    page,
    sort_key,
)

_ADD = """
local users, holders, connections, node = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('EXISTS', KEYS[5]) == 1 then return 'closed' end
local id, user, connection, owner, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local limit, unique = tonumber(ARGV[6]), ARGV[7] == '1'
local first = redis.call('HEXISTS', users, id) == 0
if first then
  if unique and redis.call('SCARD', holders) > 0 then return 'taken' end
  if limit >= 0 and redis.call('HLEN', users) >= limit then return 'full' end
  redis.call('HSET', users, id, user)
  redis.call('SADD', holders, id)
end
local present = redis.call('HGETALL', connections)
for place = 1, #present, 2 do
  if string.sub(present[place + 1], 1, 1) == '~' then redis.call('HDEL', connections, present[place]) end
end
redis.call('HSET', connections, connection, owner)
redis.call('SADD', node, entry)
return first and 'first' or 'again'
"""

_FADE = """
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if owner and string.sub(owner, 1, 1) ~= '~' then redis.call('HSET', KEYS[1], ARGV[1], '~' .. owner) end
"""

_CLOSE = """
if redis.call('HLEN', KEYS[1]) > 0 then return 0 end
redis.call('SET', KEYS[2], '1', 'EX', ARGV[1])
return 1
"""

_REMOVE = """
local users, holders, connections, node = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, connection, entry = ARGV[1], ARGV[2], ARGV[3]
redis.call('SREM', node, entry)
if redis.call('HDEL', connections, connection) == 0 then return 0 end
if redis.call('HLEN', connections) > 0 then return 0 end
redis.call('SREM', holders, id)
return redis.call('HDEL', users, id)
"""

# The clock of leases is Redis's own, so that the processes' clocks do not matter.
_BEAT = """
local now = tonumber(redis.call('TIME')[1])
local renewed = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
-- Whoever sweeps has a lease's time for it; if that process dies as well, another begins anew.
for _, node in ipairs(ended) do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), node) end
table.insert(ended, 1, renewed and '1' or '0')
return ended
"""


class RedisPresence(Presence):
    """``url``: of the Redis; ``prefix``: of its keys."""

    def __init__(self, *, url: str, prefix: str = "rooms") -> None:
        self._node = uuid.uuid4().hex
        self._prefix = prefix
        # Callers wait for a connection when all are taken, rather than fail.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=32,
            timeout=5,
            decode_responses=True,
            socket_timeout=5,
            socket_connect_timeout=2,
            socket_keepalive=True,
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._add = self._redis.register_script(_ADD)
        self._fade = self._redis.register_script(_FADE)
        self._remove = self._redis.register_script(_REMOVE)
        self._close = self._redis.register_script(_CLOSE)
        self._beat = self._redis.register_script(_BEAT)
        # What this process has said, to say it again to a Redis that has forgotten.
        self._said: dict[tuple[str, str], User] = {}
        self._leased = False
        # Whom renewals found to be left behind, until a beat comes to its end and tells.
        self._found: list[Departure] = []

    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        if not self._leased:
            await self._renew()
        answer = await _answered(self._call_add(group, connection, user, limit, unique))
        if answer == "taken":
            raise NameInUse
        if answer == "closed":
            raise GroupClosed
        if answer == "full":
            raise GroupFull
        self._said[group, connection] = user
        return bool(answer == "first")

    async def fade(self, group: str, connection: str, user: User) -> None:
        await _answered(self._fade(keys=[self._key("c", group, user.id)], args=[connection]))

    async def remove(self, group: str, connection: str, user: User) -> bool:
        self._said.pop((group, connection), None)
        return await self._call_remove(self._node, group, connection, user)

    async def members(self, group: str, *, after: str | None = None, limit: int | None = None) -> MemberPage:
        return page(sorted(await self._users(group), key=sort_key), after, limit)

    async def counts(self, groups: Sequence[str]) -> list[int]:
        pipeline = self._redis.pipeline(transaction=False)
        for group in groups:
            pipeline.hlen(self._key("u", group))
        return cast("list[int]", await _answered(pipeline.execute()))

    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        wanted = list(user_names)
        pipeline = self._redis.pipeline(transaction=False)
        for name in wanted:
            pipeline.smembers(self._key("n", group, names.user_key(name)))
        holders = await _answered(pipeline.execute())
        ids = {name: min(holding) for name, holding in zip(wanted, holders, strict=True) if holding}
        if not ids:
            return {}
        users = await _answered(cast("Any", self._redis.hmget(self._key("u", group), list(ids.values()))))
        return {name: _decode(user) for name, user in zip(ids, users, strict=True) if user is not None}

    async def close_group(self, group: str) -> bool:
        keys = [self._key("u", group), self._key("closed", group)]
        return bool(await _answered(self._close(keys=keys, args=[LEASE_SECONDS])))

    async def clear(self, group: str) -> None:
        users = await self._users(group)
        gone = [self._key("c", group, user.id) for user in users]
        gone += [self._key("n", group, names.user_key(user.name)) for user in users]
        await _answered(self._redis.delete(self._key("u", group), *gone))
        for said in [said for said in self._said if said[0] == group]:
            entry = _entry(*said, self._said.pop(said))
            await _answered(cast("Any", self._redis.srem(self._key("node", self._node), entry)))

    async def beat(self) -> list[Departure]:
        await self._renew()
        found, self._found = self._found, []
        return found

    async def close(self) -> None:
        await self._redis.aclose()

    async def _renew(self) -> None:
        """Renew the lease; take out, and note, whom processes that died left behind."""
        renewed, *ended = await _answered(
            self._beat(keys=[self._key("nodes")], args=[self._node, LEASE_SECONDS])
        )
        if self._leased and renewed == "0":
            # Redis lost its data, or others took this process for dead: say everything again.
            await self._say_again()
        self._leased = True
        for node in ended:
            await self._sweep(node)

    async def _say_again(self) -> None:
        for said in list(self._said):
            user = self._said.get(said)
            if user is None:
                continue
            await _answered(self._call_add(*said, user, None, False))
            if said not in self._said:
                # Removed while we said it.
                await self._call_remove(self._node, *said, user)

    async def _sweep(self, node: str) -> None:
        """Take out everybody whom a dead process left behind."""
        for entry in await _answered(cast("Any", self._redis.smembers(self._key("node", node)))):
            group, connection, user = msgspec.json.decode(entry, type=tuple[str, str, User])
            if await self._call_remove(node, group, connection, user):
                self._found.append(Departure(group, user))
        await _answered(self._redis.zrem(self._key("nodes"), node))

    async def _users(self, group: str) -> list[User]:
        users = await _answered(cast("Any", self._redis.hvals(self._key("u", group))))
        return [_decode(user) for user in users]

    def _call_add(
        self, group: str, connection: str, user: User, limit: int | None, unique: bool
    ) -> Awaitable[Any]:
        return self._add(
            keys=[*self._keys(group, user, self._node), self._key("closed", group)],
            args=[
                user.id,
                msgspec.json.encode(user),
                connection,
                self._node,
                _entry(group, connection, user),
                -1 if limit is None else limit,
                "1" if unique else "0",
            ],
        )

    async def _call_remove(self, node: str, group: str, connection: str, user: User) -> bool:
        entry = _entry(group, connection, user)
        gone = await _answered(
            self._remove(
                keys=self._keys(group, user, node),
                args=[user.id, connection, entry],
            )
        )
        return bool(gone)

    def _keys(self, group: str, user: User, node: str) -> list[str]:
        return [
            self._key("u", group),
            self._key("n", group, names.user_key(user.name)),
            self._key("c", group, user.id),
            self._key("node", node),
        ]

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


def _entry(group: str, connection: str, user: User) -> bytes:
    """How a process notes what it has said."""
    return msgspec.json.encode((group, connection, user))


def _decode(user: str) -> User:
    return msgspec.json.decode(user, type=User)


async def _answered(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except (RedisError, OSError) as error:
        raise Unavailable("Presence is not available; try again in a moment.") from error
