"""Presence in memory: for one process, without a lease."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from rooms.presence.base import Departure, GroupFull, MemberPage, NameInUse, Presence, page, sort_key
from rooms.protocol import validators
from rooms.protocol.types import User


class _Group:
    __slots__ = ("connections", "sort_keys", "sorted", "users")

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        # By user: connection → whether it is in grace.
        self.connections: dict[str, dict[str, bool]] = {}
        # The sort keys of the users, and the users in that order.
        self.sort_keys: list[tuple[str, str]] = []
        self.sorted: list[User] = []

    def enter(self, user: User) -> None:
        key = sort_key(user)
        index = bisect_left(self.sort_keys, key)
        self.users[user.id] = user
        self.sort_keys.insert(index, key)
        self.sorted.insert(index, user)

    def leave(self, id: str) -> None:
        index = bisect_left(self.sort_keys, sort_key(self.users.pop(id)))
        del self.sort_keys[index], self.sorted[index], self.connections[id]

    def find(self, name: str) -> list[User]:
        """Find the users with this name, in any case."""
        key = validators.user_key(name)
        found: list[User] = []
        for index in range(bisect_left(self.sort_keys, (key, "")), len(self.sort_keys)):
            if self.sort_keys[index][0] != key:
                break
            found.append(self.sorted[index])
        return found


class MemoryPresence(Presence):
    """The default."""

    shared = False

    def __init__(self) -> None:
        super().__init__()
        self._groups: dict[str, _Group] = {}

    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        found = self._groups.get(group) or _Group()
        first = user.id not in found.users
        if first:
            if unique and found.find(user.name):
                raise NameInUse
            if limit is not None and len(found.users) >= limit:
                raise GroupFull
            found.enter(user)
        present = found.connections.setdefault(user.id, {})
        for dropped in [each for each, in_grace in present.items() if in_grace]:
            del present[dropped]
        present[connection] = False
        self._groups[group] = found
        return first

    async def start_grace(self, group: str, connection: str, user: User) -> None:
        found = self._groups.get(group)
        if found and connection in found.connections.get(user.id, {}):
            found.connections[user.id][connection] = True

    async def remove(self, group: str, connection: str, user: User) -> bool:
        found = self._groups.get(group)
        if found is None or found.connections.get(user.id, {}).pop(connection, None) is None:
            return False
        if found.connections[user.id]:
            return False
        found.leave(user.id)
        if not found.users:
            del self._groups[group]
        return True

    async def members(self, group: str, *, after: str | None = None, limit: int | None = None) -> MemberPage:
        found = self._groups.get(group)
        if found is None:
            return MemberPage(users=[], count=0, more=False)
        if after is None and limit is not None:
            users = found.sorted[:limit]
            return MemberPage(users=users, count=len(found.sorted), more=len(users) < len(found.sorted))
        return page(found.sorted, after, limit)

    async def counts(self, groups: Sequence[str]) -> list[int]:
        return [len(found.users) if (found := self._groups.get(group)) else 0 for group in groups]

    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        found = self._groups.get(group)
        if found is None:
            return {}
        return {name: users[0] for name in user_names if (users := found.find(name))}

    async def close_group(self, group: str) -> bool:
        # In one process, the room's lock keeps joins out.
        return group not in self._groups

    def connections(self) -> Iterator[tuple[str, str, User]]:
        """List all connections, each with its group and its user."""
        for group, found in self._groups.items():
            for id, connections in found.connections.items():
                for connection in connections:
                    yield group, connection, found.users[id]

    def in_grace(self, group: str, connection: str, user: User) -> bool | None:
        """Return whether the connection is in grace; None if it is not in the group."""
        found = self._groups.get(group)
        return found.connections.get(user.id, {}).get(connection) if found else None

    async def heartbeat(self) -> list[Departure]:
        return []
