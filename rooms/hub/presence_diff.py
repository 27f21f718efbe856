"""Joins and leaves of a large room, sent to its members as one diff.

They are collected until the members receive all of them together. Only the last change of each user
is kept, so a diff states where every user in it is now: after the diff any member list that was
sent meanwhile is right again.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import msgspec
from msgspec import Raw

from rooms.hub.connection import Connection
from rooms.protocol.events import Joined, Left, Members

# A diff names at most this many users in each of its lists: many clients refuse frames above 1 MiB.
MAX_NAMED = 1000

_encode = msgspec.json.Encoder().encode
_EMPTY = Raw(b"[]")


class PresenceDiff:
    """The changes since the last diff.

    ``size`` is the number of users, as far as this process knows.
    """

    __slots__ = ("_changes", "_known", "_number", "size")

    def __init__(self) -> None:
        self.size = 0
        self._number = 0
        # The pending change of each user with its number, in that order.
        self._changes: dict[str, tuple[int, Joined | Left]] = {}
        # Connections whose member list was made after the change of this number.
        self._known: dict[Connection, int] = {}

    @property
    def until(self) -> int | None:
        """The number of the last pending change."""
        return self._number if self._changes else None

    def count(self, event: Joined | Left) -> None:
        self.size = max(0, self.size + (1 if isinstance(event, Joined) else -1))

    def note(self, event: Joined | Left) -> None:
        """Keep a change for the next diff."""
        self._number += 1
        self._changes.pop(event.user.id, None)
        self._changes[event.user.id] = (self._number, event)

    def mark_listed(self, connection: Connection) -> None:
        """Note that this connection knows all changes so far."""
        if self._changes:
            self._known[connection] = self._number

    def forget(self, connection: Connection) -> None:
        self._known.pop(connection, None)

    def take(self, until: int, count: int) -> tuple[DiffsByPosition, dict[Connection, int]]:
        """Take out the changes up to the number ``until``.

        The room has ``count`` users now. Returns the diffs, and the connections that know the
        changes up to some number.
        """
        diffs = DiffsByPosition([change for change in self._changes.values() if change[0] <= until], count)
        self._changes = {user: change for user, change in self._changes.items() if change[0] > until}
        known, self._known = self._known, {each: seq for each, seq in self._known.items() if seq > until}
        self.size = count
        return diffs, known


class DiffsByPosition:
    """Diffs of the same changes, each from another number on.

    Recent members know some of the changes. What several diffs contain is encoded once.
    """

    def __init__(self, changes: list[tuple[int, Joined | Left]], count: int) -> None:
        self._room = changes[-1][1].room if changes else ""
        self._count = count
        self._joined = _EncodedUsers([change for change in changes if isinstance(change[1], Joined)])
        self._left = _EncodedUsers([change for change in changes if isinstance(change[1], Left)])

    def after(self, number: int) -> Members | None:
        """The diff for a member that knows the changes up to ``number``.

        None where the member knows all.
        """
        joined, left = self._joined.after(number), self._left.after(number)
        if joined is left is _EMPTY:
            return None
        return Members(room=self._room, count=self._count, joined=joined, left=left)


class _EncodedUsers:
    """Users in the order of their changes, encoded as one text.

    Every diff is a slice of the text.
    """

    def __init__(self, changes: list[tuple[int, Joined | Left]]) -> None:
        users = [_encode(event.user) for _, event in changes]
        self._numbers = [number for number, _ in changes]
        self._text = b",".join(users)
        # Where each user begins, and where one more would.
        self._starts = list(accumulate((len(user) + 1 for user in users), initial=0))

    def after(self, number: int) -> Raw:
        first = bisect_right(self._numbers, number)
        end = min(first + MAX_NAMED, len(self._numbers))
        if first == end:
            return _EMPTY
        return Raw(b"[%b]" % self._text[self._starts[first] : self._starts[end] - 1])
