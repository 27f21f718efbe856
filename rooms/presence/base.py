"""The seam between the engine and the stores of presence.

A group (a room, or all of an application) has users; a user is in it as long as one of their
connections is. A connection that dropped *fades*: it still counts, until the engine removes it
after the grace period or the user comes back, whichever is first. Presence is a lease: whatever a
process said ends with the process, because nothing runs in a process that was killed.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rooms.protocol import validators
from rooms.protocol.types import User

# Leases are renewed, and those that ran out are looked for, at each beat. A beat comes up to 40 % and a
# tick late: the last sign of life, the lease and the beat that finds it over are together less than 60 s.
BEAT_SECONDS = 5
LEASE_SECONDS = 50


@dataclass(frozen=True, slots=True)
class Departure:
    """A user who is out of a group because the process of their last connection is gone."""

    group: str
    user: User


@dataclass(frozen=True, slots=True)
class Arrival:
    """A user who is in a group after all: their process had been taken for dead, and was only slow."""

    group: str
    user: User


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPage:
    """Some of a group's users by name, and how many there are in all."""

    users: list[User]
    count: int
    more: bool


class GroupFull(Exception):
    """The group has as many users as it may have."""


class GroupClosed(Exception):
    """The group was closed and lets nobody in any more."""


class NameInUse(Exception):
    """Another user of the group has this name."""


class Presence(ABC):
    """Every method raises Unavailable when the store does not answer. A store of one's own calls
    ``super().__init__()``."""

    # Processes that share the database share it too. Of one that is not shared, whoever is in another
    # process's rooms is not known here.
    shared: ClassVar[bool] = True

    def __init__(self) -> None:
        #: The process, as the others know it.
        self.node = uuid.uuid4().hex

    @abstractmethod
    async def add(
        self, group: str, connection: str, user: User, *, limit: int | None = None, unique: bool = False
    ) -> bool:
        """Put a user's connection into a group. True when the user was not in it before.

        A user who comes back takes the place of their own fading connections. Raises GroupFull when
        ``limit`` others are in it, NameInUse when ``unique`` and another user has the name,
        GroupClosed after ``close_group``.
        """

    @abstractmethod
    async def start_grace(self, group: str, connection: str, user: User) -> None:
        """The connection dropped; it counts until it is removed or its user comes back."""

    @abstractmethod
    async def remove(self, group: str, connection: str, user: User) -> bool:
        """Take a connection out. True when the user is out of the group with it."""

    async def remove_all(self, group: str, connections: Mapping[str, User]) -> list[User]:
        """Take these connections out, each with its user; the users who are out of the group with them."""
        return [
            user for connection, user in connections.items() if await self.remove(group, connection, user)
        ]

    @abstractmethod
    async def members(self, group: str, *, after: str | None = None, limit: int | None = None) -> MemberPage:
        """The group's users by name, beginning after the name ``after``."""

    @abstractmethod
    async def counts(self, groups: Sequence[str]) -> list[int]:
        """How many users each group has."""

    @abstractmethod
    async def find(self, group: str, user_names: Iterable[str]) -> dict[str, User]:
        """Those of the named users who are in the group, by the names as given."""

    @abstractmethod
    async def close_group(self, group: str) -> bool:
        """Let nobody into an empty group any more; False, and nothing done, where somebody is in it.

        In a store that processes share this is one step, so that of one who closes an empty room
        and one who enters it only one succeeds, and it holds until the room is removed. A store of
        one process may leave that to the room's lock and only look.
        """

    @abstractmethod
    async def heartbeat(self) -> Sequence[Departure | Arrival]:
        """Renew this process's lease; called every ``BEAT_SECONDS``. Returns whom processes that
        died left behind: each is returned once, to one process. Also who is here after all, when others
        took this process for dead."""

    async def expire_node(self, node: str, seconds: float) -> None:  # noqa: B027 (not all have leases)
        """That process is gone, or about to go: what it said ends in ``seconds``, unless it ends before.
        Many may say so; one that is alive after all takes it back with its next beat."""

    async def close(self) -> None:  # noqa: B027 (most have nothing to let go of)
        """Let go of connections. What this process said ends with its lease."""


def page(users: Iterable[User], after: str | None, limit: int | None) -> MemberPage:
    """The page of ``users`` (sorted by ``sort_key``) that begins after a name."""
    every = list(users)
    rest = every
    if after is not None:
        key = validators.user_key(after)
        rest = [user for user in every if validators.user_key(user.name) > key]
    chosen = rest if limit is None else rest[:limit]
    return MemberPage(users=chosen, count=len(every), more=len(chosen) < len(rest))


def sort_key(user: User) -> tuple[str, str]:
    """The stable order of members."""
    return validators.user_key(user.name), user.id


def place_of(user: User) -> str:
    """``sort_key`` as one text, for stores that keep the order themselves, by bytes."""
    return "\0".join(sort_key(user))


def places_of(name: str) -> tuple[str, str]:
    """The places of whoever has this name lie from the one text up to the other."""
    key = validators.user_key(name)
    return f"{key}\0", f"{key}\1"
