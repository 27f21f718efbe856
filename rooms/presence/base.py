"""The interface of presence stores.

A group (a room, or all of an application) has users; a user is in it as long as one of the user's
connections is. A dropped connection is *in grace*: it counts until the node removes it after the grace
period, or until the user returns. Presence is a lease: the connections of a process expire with it, because
a process that was killed removes nothing.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rooms.protocol import validators
from rooms.protocol.types import User

# Each heartbeat renews the lease and finds expired ones. It comes up to 40 % and a tick late: the interval
# since the last renewal, the lease and the heartbeat that finds it expired take less than 60 s together.
HEARTBEAT_SECONDS = 5
LEASE_TTL = 50


@dataclass(frozen=True, slots=True)
class Departure:
    """A user left a group because the process of the last connection is gone."""

    group: str
    user: User


@dataclass(frozen=True, slots=True)
class Arrival:
    """A user is in a group after all: the lease of a slow process had expired."""

    group: str
    user: User


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPage:
    """Some users of a group by name, and the number of all its users."""

    users: list[User]
    count: int
    more: bool


class GroupFull(Exception):
    """The group has its maximum number of users."""


class GroupClosed(Exception):
    """The group was closed and accepts no users."""


class NameInUse(Exception):
    """Another user of the group has this name."""


class Presence(ABC):
    """Stores which users are in which groups.

    Every method raises Unavailable when the store does not answer. A custom store calls
    ``super().__init__()``.
    """

    # Whether all processes share the store. One that is not shared has only the users of its process.
    shared: ClassVar[bool] = True

    def __init__(self) -> None:
        #: The id of the process.
        self.node = uuid.uuid4().hex

    @abstractmethod
    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        """Add a user's connection to a group; return True for the first one.

        It replaces the connections of the user that are in grace. Raises GroupFull when ``limit`` others are
        in the group, NameInUse when ``unique`` and another user has the name, GroupClosed after
        ``close_group``.
        """

    @abstractmethod
    async def start_grace(self, group: str, connection: str, user: User) -> None:
        """Keep a dropped connection until it is removed or its user returns."""

    @abstractmethod
    async def remove(self, group: str, connection: str, user: User) -> bool:
        """Remove a connection. Returns True when the user left the group with it."""

    async def remove_all(self, group: str, connections: Mapping[str, User]) -> list[User]:
        """Remove connections, each with its user; return the users that left."""
        return [
            user for connection, user in connections.items() if await self.remove(group, connection, user)
        ]

    @abstractmethod
    async def members(self, group: str, *, after: str | None = None, limit: int | None = None) -> MemberPage:
        """List the group's users by name, beginning after the name ``after``."""

    @abstractmethod
    async def counts(self, groups: Sequence[str]) -> list[int]:
        """Count the users of each group."""

    @abstractmethod
    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        """Find the users of the group that have these names, by the names as given."""

    @abstractmethod
    async def close_group(self, group: str) -> bool:
        """Close an empty group for users; return False if it is not empty.

        In a shared store this is one step, so that either the close of an empty room or a join succeeds,
        and it holds until the room is removed. A store of one process may only check that the group is
        empty: the room's lock keeps joins out.
        """

    @abstractmethod
    async def heartbeat(self) -> Sequence[Departure | Arrival]:
        """Renew the lease of this process; called every ``HEARTBEAT_SECONDS``.

        Returns the departures of users whose processes expired, each once, to one process. Also the arrivals
        of users of this process, when its own lease had expired.
        """

    async def expire_node(self, node: str, seconds: float) -> None:  # noqa: B027 (not all have leases)
        """Shorten the lease of a process that is gone, or about to end, to ``seconds``.

        Several processes may do so; a process that is alive renews its lease with its next heartbeat.
        """

    async def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Close the store. The users of this process stay until its lease expires."""


def page(users: Iterable[User], after: str | None, limit: int | None) -> MemberPage:
    """Return the page of ``users`` (sorted by ``sort_key``) that begins after a name."""
    every = list(users)
    rest = every
    if after is not None:
        key = validators.user_key(after)
        rest = [user for user in every if validators.user_key(user.name) > key]
    chosen = rest if limit is None else rest[:limit]
    return MemberPage(users=chosen, count=len(every), more=len(chosen) < len(rest))


def sort_key(user: User) -> tuple[str, str]:
    """Return the key of the stable order of members."""
    return validators.user_key(user.name), user.id


def sort_text(user: User) -> str:
    """Return ``sort_key`` as one text, for stores that sort by bytes."""
    return "\0".join(sort_key(user))


def sort_range(name: str) -> tuple[str, str]:
    """Return the range of sort texts of a name: from the first, below the second."""
    key = validators.user_key(name)
    return f"{key}\0", f"{key}\1"
