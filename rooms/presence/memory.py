"""Presence in this process's memory: for one process, without a lease, since it ends with it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from rooms.presence.base import Departure, GroupFull, MemberPage, NameInUse, Presence, page, sort_key
from rooms.protocol import validators
from rooms.protocol.types import User


class _Group:
    __slots__ = ("connections", "listed", "order", "users")

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        # Of each user: connection → whether it is fading.
        self.connections: dict[str, dict[str, bool]] = {}
        # Sort keys of the users, whose first part is the name's key; and the users in that order.
        self.order: list[tuple[str, str]] = []
        self.listed: list[User] = []

    def enter(self, user: User) -> None:
        key = sort_key(user)
        place = bisect_left(self.order, key)
        self.users[user.id] = user
        self.order.insert(place, key)
        self.listed.insert(place, user)

    def leave(self, id: str) -> None:
        place = bisect_left(self.order, sort_key(self.users.pop(id)))
        del self.order[place], self.listed[place], self.connections[id]

    def holders(self, name: str) -> list[User]:
        """Users with this name, in whatever case."""
        key = validators.user_key(name)
        found: list[User] = []
        for place in range(bisect_left(self.order, (key, "")), len(self.order)):
            if self.order[place][0] != key:
                break
            found.append(self.listed[place])
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
            if unique and found.holders(user.name):
                raise NameInUse
            if limit is not None and len(found.users) >= limit:
                raise GroupFull
            found.enter(user)
        present = found.connections.setdefault(user.id, {})
        for faded in [each for each, fading in present.items() if fading]:
            del present[faded]
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
            users = found.listed[:limit]
            return MemberPage(users=users, count=len(found.listed), more=len(users) < len(found.listed))
        return page(found.listed, after, limit)

    async def counts(self, groups: Sequence[str]) -> list[int]:
        return [len(found.users) if (found := self._groups.get(group)) else 0 for group in groups]

    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        found = self._groups.get(group)
        if found is None:
            return {}
        return {name: holders[0] for name in user_names if (holders := found.holders(name))}

    async def close_group(self, group: str) -> bool:
        # In one process the room's own lock keeps others out.
        return group not in self._groups

    def said(self) -> Iterator[tuple[str, str, User]]:
        """Every connection, with its group and its user."""
        for group, found in self._groups.items():
            for id, connections in found.connections.items():
                for connection in connections:
                    yield group, connection, found.users[id]

    def fading(self, group: str, connection: str, user: User) -> bool | None:
        """Whether the connection fades; None where it is not in the group."""
        found = self._groups.get(group)
        return found.connections.get(user.id, {}).get(connection) if found else None

    async def heartbeat(self) -> list[Departure]:
        return []
