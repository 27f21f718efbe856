"""Who came to a large room and who went, gathered until its members are told of all of them at once.

Of each user only the last change is kept, so a digest says where everybody in it stands now: whatever list
of members somebody was given meanwhile, it is right again after the digest.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import msgspec
from msgspec import Raw

from rooms.hub.connection import Connection
from rooms.protocol.events import Joined, Left, Members

# So many users a digest names in each of its lists, which keeps it below the 1 MiB that many clients refuse.
MOST_NAMED = 1000

_encode = msgspec.json.Encoder().encode
_NOBODY = Raw(b"[]")


class PresenceDiff:
    """A room's users as their comings and goings tell. ``size`` is how many there are, as far as is known."""

    __slots__ = ("_changes", "_known", "_number", "size")

    def __init__(self) -> None:
        self.size = 0
        self._number = 0
        # What has yet to be told of each user, with its number, in that order.
        self._changes: dict[str, tuple[int, Joined | Left]] = {}
        # Connections whose list of members was made after the change of this number was heard.
        self._known: dict[Connection, int] = {}

    @property
    def until(self) -> int | None:
        """The number of the last change that has yet to be told."""
        return self._number if self._changes else None

    def count(self, event: Joined | Left) -> None:
        self.size = max(0, self.size + (1 if isinstance(event, Joined) else -1))

    def note(self, event: Joined | Left) -> None:
        """Keep a change for the next digest."""
        self._number += 1
        self._changes.pop(event.user.id, None)
        self._changes[event.user.id] = (self._number, event)

    def listed(self, connection: Connection) -> None:
        """This connection has been told of all changes so far."""
        if self._changes:
            self._known[connection] = self._number

    def forget(self, connection: Connection) -> None:
        self._known.pop(connection, None)

    def take(self, until: int, count: int) -> tuple[Digests, dict[Connection, int]]:
        """Take out the changes up to the number ``until``, now that the room has ``count`` users: what its
        members are to be told, and those who know it up to some number."""
        told = Digests([change for change in self._changes.values() if change[0] <= until], count)
        self._changes = {user: change for user, change in self._changes.items() if change[0] > until}
        known, self._known = self._known, {each: seq for each, seq in self._known.items() if seq > until}
        self.size = count
        return told, known


class Digests:
    """Digests of the same changes, each from another number on, for those who came in since the last one know
    some of it. What several are told is written down once."""

    def __init__(self, changes: list[tuple[int, Joined | Left]], count: int) -> None:
        self._room = changes[-1][1].room if changes else ""
        self._count = count
        self._joined = _Told([change for change in changes if isinstance(change[1], Joined)])
        self._left = _Told([change for change in changes if isinstance(change[1], Left)])

    def after(self, number: int) -> Members | None:
        """What somebody is told who knows it up to this number; None is nothing."""
        joined, left = self._joined.after(number), self._left.after(number)
        if joined is left is _NOBODY:
            return None
        return Members(room=self._room, count=self._count, joined=joined, left=left)


class _Told:
    """Users with the numbers of their changes, in the order of these: one text, of which each is told what
    they do not know."""

    def __init__(self, changes: list[tuple[int, Joined | Left]]) -> None:
        users = [_encode(event.user) for _, event in changes]
        self._numbers = [number for number, _ in changes]
        self._text = b",".join(users)
        # Where each begins, and where one more would.
        self._starts = list(accumulate((len(user) + 1 for user in users), initial=0))

    def after(self, number: int) -> Raw:
        first = bisect_right(self._numbers, number)
        end = min(first + MOST_NAMED, len(self._numbers))
        if first == end:
            return _NOBODY
        return Raw(b"[%b]" % self._text[self._starts[first] : self._starts[end] - 1])
