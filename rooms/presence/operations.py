"""Changes of a group in one transaction, under its lock; runs in threads.

The rows of the users concerned are read, the changes are made to them in memory one after the other, and
the result is written: a few statements for any number of changes.
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
from rooms.presence.base import LEASE_TTL, GroupClosed, GroupFull, NameInUse, sort_text
from rooms.presence.queries import locked, named
from rooms.protocol import validators
from rooms.protocol.types import User


@dataclass(frozen=True, slots=True)
class Add:
    """A call of ``Presence.add``."""

    group: str
    node: str
    connection: str
    user: User
    limit: int | None = None
    unique: bool = False


@dataclass(frozen=True, slots=True)
class StartGrace:
    """A call of ``Presence.start_grace``."""

    group: str
    connection: str
    user: User


@dataclass(frozen=True, slots=True)
class Remove:
    """A call of ``Presence.remove``.

    The user is then ``out``, still ``inside``, or was ``absent``.
    """

    group: str
    connection: str
    user: User


@dataclass(frozen=True, slots=True)
class Close:
    """A call of ``Presence.close_group``."""

    group: str


Change = Add | StartGrace | Remove | Close


def apply_changes(group: str, entries: Sequence[Entry[Change]]) -> list[Any]:
    """Apply changes to a group, and return the result or the error of each."""
    with locked(group) as closed:
        # Checked under the lock, because waiting for it may take long.
        changes = [None if entry.done else entry.item for entry in entries]
        state = _Group(group, [change for change in changes if change is not None], closed=closed[group])
        results = [None if change is None else state.apply(change) for change in changes]
        state.write()
    return results


class _Group:
    """The part of a group that changes concern: as read, and as it is to be."""

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
        # The ids of users by the key of their name.
        self._ids_by_name: defaultdict[str, set[str]] = defaultdict(set)
        # A user that is removed and added again may find the name in use.
        staying = self._users.keys() - {each.user.id for each in changes if isinstance(each, Remove)}
        unique = [each.user for each in changes if isinstance(each, Add) and each.unique]
        if wanted := {user.name for user in unique if user.id not in staying}:
            for user in named(name, wanted):
                self._ids_by_name[validators.user_key(user.name)].add(user.user_id)
        # The number of users, counted when it is needed.
        self._size: int | None = None
        # Keys of rows to delete or update.
        self._left: set[int] = set()
        self._dropped: set[int] = set()
        self._grace_started: set[int] = set()

    def apply(self, change: Change) -> Any:
        """Apply a change and return its result or its error."""
        try:
            match change:
                case Add():
                    return self._add(change)
                case StartGrace():
                    return self._start_grace(change)
                case Remove():
                    return self._remove(change)
                case Close():
                    return self._close()
        except (GroupClosed, GroupFull, NameInUse) as error:
            return error

    def write(self) -> None:
        """Write the result of all changes."""
        if self._dropped:
            PresentConnection.objects.filter(pk__in=self._dropped).delete()
        if self._left:
            PresentUser.objects.filter(pk__in=self._left).delete()
        if started := self._grace_started - self._dropped:
            PresentConnection.objects.filter(pk__in=started).update(in_grace=True)
        if users := [row for row in self._users.values() if row.pk is None]:
            PresentUser.objects.bulk_create(users)
        connections = [row for rows in self._connections.values() for row in rows.values() if row.pk is None]
        if connections:
            PresentConnection.objects.bulk_create(connections)
        if self._closing:
            closed_until = Now() + timedelta(seconds=LEASE_TTL)
            PresenceGroup.objects.filter(pk=self._name).update(closed_until=closed_until)

    def _add(self, change: Add) -> bool:
        if self._closed:
            raise GroupClosed
        user = change.user
        first = user.id not in self._users
        if first:
            self._enter(user, change)
        own = self._connections[user.id]
        for connection in [key for key, row in own.items() if row.in_grace or key == change.connection]:
            self._drop(own.pop(connection))
        own[change.connection] = PresentConnection(
            group=self._name, user_id=user.id, connection=change.connection, node=change.node
        )
        return first

    def _enter(self, user: User, change: Add) -> None:
        same_name = self._ids_by_name[validators.user_key(user.name)]
        if change.unique and same_name:
            raise NameInUse
        if change.limit is not None and self._number_of_users() >= change.limit:
            raise GroupFull
        same_name.add(user.id)
        sort_key = sort_text(user).encode()
        self._users[user.id] = PresentUser(
            group=self._name, user_id=user.id, name=user.name, guest=user.guest, sort_key=sort_key
        )
        self._resize(1)

    def _start_grace(self, change: StartGrace) -> None:
        row = self._connections[change.user.id].get(change.connection)
        if row is not None and not row.in_grace:
            row.in_grace = True
            if row.pk is not None:
                self._grace_started.add(row.pk)

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
        self._ids_by_name[validators.user_key(user.name)].discard(id)
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
