"""Who came to a large room and who went, gathered until its members are told of all of them at once.

Of each user only the last change is kept, so a digest says where everybody in it stands now: whatever list
of members somebody was given meanwhile, it is right again after the digest.
"""

from __future__ import annotations

from rooms.events import Joined, Left, Members
from rooms.fanout.connection import Connection

# So many users a digest names in each of its lists, which keeps it below the 1 MiB that many clients refuse.
MOST_NAMED = 1000


class Crowd:
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

    def take(self, until: int, count: int) -> tuple[Members | None, dict[Connection, Members | None]]:
        """Take out the changes up to the number ``until``, now that the room has ``count`` users: what its
        members are to be told, and what instead those who know some of it. None is nothing."""
        told = [change for change in self._changes.values() if change[0] <= until]
        self._changes = {user: change for user, change in self._changes.items() if change[0] > until}
        known, self._known = self._known, {each: seq for each, seq in self._known.items() if seq > until}
        self.size = count
        return _digest(told, 0, count), {each: _digest(told, number, count) for each, number in known.items()}


def _digest(changes: list[tuple[int, Joined | Left]], after: int, count: int) -> Members | None:
    events = [event for number, event in changes if number > after]
    if not events:
        return None
    return Members(
        room=events[-1].room,
        count=count,
        joined=[event.user for event in events if isinstance(event, Joined)][:MOST_NAMED],
        left=[event.user for event in events if isinstance(event, Left)][:MOST_NAMED],
    )
