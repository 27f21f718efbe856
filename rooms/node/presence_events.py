"""Join and leave events: sent at once, in large rooms as one diff per second.

In this process the joins and leaves of one user have one order: a change of presence and its
announcement are one step under the user's lock. Announcements of two processes may still cross, so
that the last one is wrong; therefore a user whose leave was announced is looked up once more a
moment later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

from rooms.hub.connection import Connection
from rooms.hub.room import Room
from rooms.node.context import NodeContext
from rooms.protocol.events import Joined, Left, Rejoined
from rooms.protocol.types import LeftReason, User

logger = logging.getLogger("rooms.node")

# An earlier announcement of another process has arrived by then.
VERIFY_AFTER_SECONDS = 1.0
DIFF_SECONDS = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Unverified:
    """The last announcement about a user: ``present``, or not."""

    room: Room
    user: User
    present: bool
    since: float = field(default_factory=time.monotonic)


class PresenceEvents:
    """Announce the joins and leaves of users, and verify doubtful announcements.

    The methods, except ``verify``, are called under the user's lock, and return at once.
    """

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        # Both by the room's key and the user's id. Users that presence has, and whose join is not
        # announced yet; and the last announcements that may be wrong.
        self._unannounced: set[tuple[str, str]] = set()
        self._unverified: dict[tuple[str, str], _Unverified] = {}

    def user_added(self, room: Room, user: User) -> None:
        """Note a new user in presence.

        The user is announced once one of its connections receives events.
        """
        self._unannounced.add((room.key, user.id))

    def member_active(self, room: Room, user: User, connection: Connection) -> None:
        """Announce a new user, one of whose connections receives the room now."""
        if (room.key, user.id) in self._unannounced:
            self._announce_joined(room, user, exclude=connection)

    def join_failed(self, room: Room, user: User) -> None:
        """Schedule a look-up of an unannounced user.

        Another connection of the user may be a member.
        """
        if (room.key, user.id) in self._unannounced:
            self._unannounced.discard((room.key, user.id))
            self._unverified[room.key, user.id] = _Unverified(room, user, present=False)

    def user_returned(self, room: Room, user: User) -> None:
        """Announce a user that is present after all, though the leave was announced."""
        self._announce_joined(room, user)
        self._unverified[room.key, user.id] = _Unverified(room, user, present=True)

    def user_removed(self, room: Room, user: User, reason: LeftReason) -> None:
        """Announce the leave of a user, unless the join was not announced."""
        if (room.key, user.id) in self._unannounced:
            self._unannounced.discard((room.key, user.id))
            return
        self.announce(room, Left(room=room.name, user=user, reason=reason))
        self._unverified[room.key, user.id] = _Unverified(room, user, present=False)

    def announce(
        self, room: Room, event: Joined | Rejoined | Left, exclude: Connection | None = None
    ) -> None:
        """Send an event to the room's members in all processes."""
        room.broadcast(event, exclude=exclude)
        self._context.broker.publish(room.key, event)

    def _announce_joined(self, room: Room, user: User, exclude: Connection | None = None) -> None:
        self._unannounced.discard((room.key, user.id))
        self._unverified.pop((room.key, user.id), None)
        self.announce(room, Joined(room=room.name, user=user), exclude=exclude)

    async def verify(self) -> None:
        """Correct announcements that turned out wrong.

        Raises Unavailable; the next call continues.
        """
        before = time.monotonic() - VERIFY_AFTER_SECONDS
        by_key: dict[str, list[_Unverified]] = {}
        for (key, _), each in self._unverified.items():
            if each.since <= before:
                by_key.setdefault(key, []).append(each)
        for key, unverified in by_key.items():
            found = await self._context.presence.find(key, [each.user.name for each in unverified])
            present = {user.id for user in found.values()}
            for each in unverified:
                self._correct(key, each, present=each.user.id in present)

    def _correct(self, key: str, last: _Unverified, *, present: bool) -> None:
        room, user = last.room, last.user
        # An announcement since presence was asked is newer.
        if self._unverified.get((key, user.id)) is not last:
            return
        del self._unverified[key, user.id]
        if present is last.present or room.removed or (room.key, user.id) in self._unannounced:
            return
        if present:
            self.user_returned(room, user)
        else:
            self.user_removed(room, user, "dropped")


class PresenceDiffs:
    """Send the collected joins and leaves of large rooms to the local members.

    Local members are those with a connection in this process.
    """

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._rooms: set[Room] = set()
        self._running: asyncio.Task[None] | None = None

    def add(self, room: Room) -> None:
        """Send the room's diff within a second."""
        self._rooms.add(room)
        if self._running is None:
            self._running = self._context.tasks.spawn(self._run())

    def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        try:
            while self._rooms:
                await asyncio.sleep(DIFF_SECONDS)
                await self.flush()
        finally:
            self._running = None

    async def flush(self) -> None:
        """Send all pending diffs now."""
        # A change during the count is part of the next diff, whose count includes it.
        pending = {room: until for room in self._rooms if (until := room.pending_diff) is not None}
        counts = await self._counts(list(pending))
        for (room, until), count in zip(pending.items(), counts, strict=True):
            room.flush_diff(until, count, self._context.hub.scheduler.flush)
        self._rooms = {room for room in self._rooms if room.pending_diff is not None}

    async def _counts(self, rooms: list[Room]) -> list[int]:
        """Return the number of users of each room.

        Where presence is down, these are the numbers that this process knows.
        """
        try:
            return await self._context.presence.counts([room.key for room in rooms])
        except Exception:
            logger.warning("Large rooms send their size as this process knows it.", exc_info=True)
            return [room.size for room in rooms]
