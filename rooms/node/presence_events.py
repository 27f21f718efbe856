"""Telling a room who came and who went, as presence says it.

In this process one user's comings and goings have one order: what presence answers and what is told of it
is one step (``Parts.places``). Two processes' words may still cross, so that what was told last is not so;
therefore whoever was told to have left is looked for once more, a moment later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rooms.hub.connection import Connection
from rooms.node.context import NodeContext
from rooms.node.registry import Room
from rooms.protocol.events import Joined, Left, Rejoined
from rooms.protocol.types import LeftReason, User

# Whatever another process had told before has come by then.
CROSSING_SECONDS = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Doubt:
    """What was told last of a user may not be so: that they are ``inside``, or are not."""

    room: Room
    user: User
    inside: bool
    since: float = field(default_factory=time.monotonic)


class PresenceEvents:
    """All but ``look`` are called by whoever holds the user's place, and wait for nothing."""

    def __init__(self, parts: NodeContext) -> None:
        self._parts = parts
        # Groups and ids of users who came, of whom the others have yet to be told.
        self._unheard: set[tuple[str, str]] = set()
        # By the same.
        self._doubts: dict[tuple[str, str], _Doubt] = {}

    def came(self, room: Room, user: User) -> None:
        """Presence has a user who was not in the room before. The others hear of them as soon as one of
        their connections hears the room."""
        self._unheard.add((room.group, user.id))

    def settled(self, room: Room, user: User, connection: Connection) -> None:
        """This connection of the user hears the room."""
        if (room.group, user.id) in self._unheard:
            self._tell_joined(room, user, exclude=connection)

    def failed(self, room: Room, user: User) -> None:
        """A connection of the user could not stay, and was not their last one: another may be there, and
        nobody have been told."""
        who = (room.group, user.id)
        if who in self._unheard:
            self._unheard.discard(who)
            self._doubts[who] = _Doubt(room, user, inside=False)

    def returned(self, room: Room, user: User) -> None:
        """A user is there after all who was told to have left."""
        self._tell_joined(room, user)
        self._doubts[room.group, user.id] = _Doubt(room, user, inside=True)

    def left(self, room: Room, user: User, reason: LeftReason) -> None:
        """With their last connection a user is out; nobody hears that of one whose coming nobody heard of."""
        who = (room.group, user.id)
        if who in self._unheard:
            self._unheard.discard(who)
            return
        self.tell(room, Left(room=room.name, user=user, reason=reason))
        self._doubts[who] = _Doubt(room, user, inside=False)

    async def look(self) -> None:
        """Where it is not so what was told a moment ago, tell what is; and look at that again. Raises
        Unavailable, and goes on with the next look."""
        before = time.monotonic() - CROSSING_SECONDS
        by_group: dict[str, list[_Doubt]] = {}
        for (group, _), doubt in self._doubts.items():
            if doubt.since <= before:
                by_group.setdefault(group, []).append(doubt)
        for group, doubts in by_group.items():
            inside = await self._parts.presence.find(group, [doubt.user.name for doubt in doubts])
            ids = {user.id for user in inside.values()}
            for doubt in doubts:
                self._resolve(group, doubt, inside=doubt.user.id in ids)

    def _resolve(self, group: str, doubt: _Doubt, *, inside: bool) -> None:
        who = (group, doubt.user.id)
        # What was told since presence was asked is newer.
        if self._doubts.get(who) is not doubt:
            return
        del self._doubts[who]
        if inside is doubt.inside or doubt.room.gone or who in self._unheard:
            return
        if inside:
            self.returned(doubt.room, doubt.user)
        else:
            self.left(doubt.room, doubt.user, "dropped")

    def _tell_joined(self, room: Room, user: User, exclude: Connection | None = None) -> None:
        self._unheard.discard((room.group, user.id))
        self._doubts.pop((room.group, user.id), None)
        self.tell(room, Joined(room=room.name, user=user), exclude=exclude)

    def tell(self, room: Room, event: Joined | Rejoined | Left, exclude: Connection | None = None) -> None:
        """Tell the room's members, in all processes."""
        self._parts.hub.group_send(room.group, event, exclude=exclude)
        self._parts.bus.publish(room.group, event)
