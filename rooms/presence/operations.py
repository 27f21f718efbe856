"""What is changed in a group at once, under its lock and in one transaction; all of it runs in threads.

As much of the group as the changes are about is read, they are made to that one after the other, and what
became of it is written: a few statements, however many changes there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from django.db.models import Q
from django.db.models.functions import Now

from rooms.concurrency.batching import Entry
from rooms.models import PresenceGroup, PresentConnection, PresentUser
from rooms.presence.base import LEASE_SECONDS, GroupClosed, GroupFull, NameInUse, place_of
from rooms.presence.queries import holders, locked
from rooms.protocol import validators
from rooms.protocol.types import User


@dataclass(frozen=True, slots=True)
class Add:
    """As ``Presence.add``."""

    group: str
    node: str
    connection: str
    user: User
    limit: int | None = None
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Fade:
    """As ``Presence.start_grace``."""

    group: str
    connection: str
    user: User


@dataclass(frozen=True, slots=True)
class Remove:
    """As ``Presence.remove``: whether the user is ``out`` with it, ``inside`` still, or was ``absent``."""

    group: str
    connection: str
    user: User


@dataclass(frozen=True, slots=True)
class Close:
    """As ``Presence.close_group``."""

    group: str


Change = Add | Fade | Remove | Close


def carry_out(group: str, entries: Sequence[Entry[Change]]) -> list[Any]:
    """What each change answers, or raises."""
    with locked(group) as closed:
        # Not before, because waiting for the lock is what takes long.
        wanted = [None if entry.done else entry.item for entry in entries]
        changing = _Group(group, [change for change in wanted if change is not None], closed=closed[group])
        answers = [None if change is None else changing.answer(change) for change in wanted]
        changing.write()
    return answers


class _Group:
    """As much of a group as these changes are about: as it was read, and as it is to be."""

    def __init__(self, name: str, changes: Sequence[Change], *, closed: bool) -> None:
        self._name = name
        self._closed = closed
        self._closing = False
        ids = {change.user.id for change in changes if not isinstance(change, Close)}
        self._users: dict[str, PresentUser] = {}
        self._connections: defaultdict[str, dict[str, PresentConnection]] = defaultdict(dict)
        if ids:
            of_users = Q(group=name, user_id__in=ids)
            self._users = {row.user_id: row for row in PresentUser.objects.filter(of_users)}
            for row in PresentConnection.objects.filter(of_users):
                self._connections[row.user_id][row.connection] = row
        # Who has a name, as names are compared.
        self._holders: defaultdict[str, set[str]] = defaultdict(set)
        # Whoever goes out and comes again may find the name taken.
        staying = self._users.keys() - {each.user.id for each in changes if isinstance(each, Remove)}
        unique = [each.user for each in changes if isinstance(each, Add) and each.unique]
        if wanted := {user.name for user in unique if user.id not in staying}:
            for holder in holders(name, wanted):
                self._holders[validators.user_key(holder.name)].add(holder.user_id)
        # How many users it has, once that is asked for.
        self._size: int | None = None
        # Keys of rows that are not to be so any more.
        self._left: set[int] = set()
        self._dropped: set[int] = set()
        self._faded: set[int] = set()

    def answer(self, change: Change) -> Any:
        try:
            match change:
                case Add():
                    return self._add(change)
                case Fade():
                    return self._fade(change)
                case Remove():
                    return self._remove(change)
                case Close():
                    return self._close()
        except (GroupClosed, GroupFull, NameInUse) as error:
            return error

    def write(self) -> None:
        if self._dropped:
            PresentConnection.objects.filter(pk__in=self._dropped).delete()
        if self._left:
            PresentUser.objects.filter(pk__in=self._left).delete()
        if faded := self._faded - self._dropped:
            PresentConnection.objects.filter(pk__in=faded).update(fading=True)
        if users := [row for row in self._users.values() if row.pk is None]:
            PresentUser.objects.bulk_create(users)
        connections = [row for rows in self._connections.values() for row in rows.values() if row.pk is None]
        if connections:
            PresentConnection.objects.bulk_create(connections)
        if self._closing:
            closed_until = Now() + timedelta(seconds=LEASE_SECONDS)
            PresenceGroup.objects.filter(pk=self._name).update(closed_until=closed_until)

    def _add(self, change: Add) -> bool:
        if self._closed:
            raise GroupClosed
        user = change.user
        first = user.id not in self._users
        if first:
            self._enter(user, change)
        own = self._connections[user.id]
        for connection in [key for key, row in own.items() if row.fading or key == change.connection]:
            self._drop(own.pop(connection))
        own[change.connection] = PresentConnection(
            group=self._name, user_id=user.id, connection=change.connection, node=change.node
        )
        return first

    def _enter(self, user: User, change: Add) -> None:
        called_so = self._holders[validators.user_key(user.name)]
        if change.unique and called_so:
            raise NameInUse
        if change.limit is not None and self._number_of_users() >= change.limit:
            raise GroupFull
        called_so.add(user.id)
        place = place_of(user).encode()
        self._users[user.id] = PresentUser(
            group=self._name, user_id=user.id, name=user.name, guest=user.guest, place=place
        )
        self._resize(1)

    def _fade(self, change: Fade) -> None:
        row = self._connections[change.user.id].get(change.connection)
        if row is not None and not row.fading:
            row.fading = True
            if row.pk is not None:
                self._faded.add(row.pk)

    def _remove(self, change: Remove) -> Literal["out", "inside", "absent"]:
        id = change.user.id
        if id not in self._users:
            return "absent"
        own = self._connections[id]
        row = own.pop(change.connection, None)
        if row is None:
            return "inside"
        self._drop(row)
        if own:
            return "inside"
        user = self._users.pop(id)
        if user.pk is not None:
            self._left.add(user.pk)
        self._holders[validators.user_key(user.name)].discard(id)
        self._resize(-1)
        return "out"

    def _close(self) -> bool:
        if self._number_of_users():
            return False
        self._closed = self._closing = True
        return True

    def _drop(self, row: PresentConnection) -> None:
        if row.pk is not None:
            self._dropped.add(row.pk)

    def _number_of_users(self) -> int:
        if self._size is None:
            stored = PresentUser.objects.filter(group=self._name).count()
            new = sum(row.pk is None for row in self._users.values())
            self._size = stored + new - len(self._left)
        return self._size

    def _resize(self, by: int) -> None:
        if self._size is not None:
            self._size += by
