"""A group of connections in this process, and the broadcast of an event to it.

An event is encoded once per protocol and framed once for all members that receive the same bytes
(``shared_frames.py``): no await, no task and no encoding per member.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from rooms.hub.connection import Connection
from rooms.hub.send_queue import SendQueue
from rooms.hub.shared_frames import EncodingCache, FlushWindow
from rooms.hub.write_scheduler import WriteScheduler
from rooms.protocol.events import Event, Joined, Left

# The window of a group that has not sent anything yet.
_CLOSED_WINDOW: Final = FlushWindow()


class Hub:
    """What all groups of one process share. Belongs to one event loop."""

    __slots__ = ("dropped", "scheduler")

    def __init__(self, scheduler: WriteScheduler) -> None:
        self.scheduler = scheduler
        # Events that were not sent, by the reason.
        self.dropped: Counter[str] = Counter()


class Delivery(NamedTuple):
    """An event on its way to the members of a group."""

    event: Event
    # The sequence number of a message that history keeps.
    seq: int | None = None
    exclude: Connection | None = None
    # Ids of the users that receive it; None: every member.
    only: Collection[str] | None = None
    # Members that receive it; None: all.
    among: Collection[Connection] | None = None
    # Slow members do not receive it.
    volatile: bool = False

    @property
    def presence(self) -> tuple[str, bool] | None:
        """The user's id and whether the user joined, of a join or leave.

        None for another event.
        """
        event = self.event
        return (event.user.id, isinstance(event, Joined)) if isinstance(event, (Joined, Left)) else None


class Group:
    """Connections that receive the same events.

    ``key`` names the group on the channel layer and in presence.
    """

    __slots__ = ("_connections_of", "_hub", "_window", "key", "members")

    def __init__(self, hub: Hub, key: str) -> None:
        self._hub = hub
        self.key = key
        # With the id of the user of each at the time when it was added.
        self.members: dict[Connection, str | None] = {}
        # The connections of each user; None until an event is sent to single users.
        self._connections_of: dict[str, dict[Connection, None]] | None = None
        self._window = _CLOSED_WINDOW

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"

    def add(self, connection: Connection) -> None:
        """Add a connection. Does nothing for a member."""
        if connection in self.members:
            return
        user = self.members[connection] = connection.user.id if connection.user else None
        if self._connections_of is not None and user is not None:
            self._connections_of.setdefault(user, {})[connection] = None
        self._window.join(connection)

    def discard(self, connection: Connection) -> bool:
        """Remove a connection. Returns whether it was the last member in this process."""
        if connection not in self.members:
            return False
        user = self.members.pop(connection)
        if self._connections_of is not None and user is not None:
            connections = self._connections_of[user]
            del connections[connection]
            if not connections:
                del self._connections_of[user]
        self._window.discard(connection)
        if self.members:
            return False
        self._connections_of, self._window = None, _CLOSED_WINDOW
        return True

    def broadcast(
        self,
        event: Event,
        *,
        exclude: Connection | None = None,
        only: Collection[str] | None = None,
        volatile: bool = False,
    ) -> None:
        """Send an event to the members in this process.

        ``exclude`` does not receive it; ``only`` are the ids of the users that do (None: all). A
        ``volatile`` event is dropped for members whose send queue is more than half full.
        """
        if self.members:
            self._deliver(Delivery(event, None, exclude, only, None, volatile))

    def connections_of(self, users: Iterable[str]) -> list[Connection]:
        """The members of users with these ids."""
        if self._connections_of is None:
            self._connections_of = {}
            for member, user in self.members.items():
                if user is not None:
                    self._connections_of.setdefault(user, {})[member] = None
        return [member for user in users for member in self._connections_of.get(user, ())]

    # Delivery ----------------------------------------------------------------------------------------

    @property
    def _application(self) -> str:
        """The application of its members: all are in the same."""
        return next(iter(self.members)).application

    def _deliver(self, delivery: Delivery) -> None:
        excluded: Collection[Connection] = () if delivery.exclude is None else (delivery.exclude,)
        self._deliver_to(delivery, excluded)

    def _deliver_to(self, delivery: Delivery, excluded: Collection[Connection]) -> None:
        if delivery.only is not None:
            self._send_to_each(delivery, self.connections_of(set(delivery.only)), excluded)
        elif delivery.among is not None:
            self._send_to_each(delivery, delivery.among, excluded)
        else:
            self._send_to_all(delivery, excluded)

    def _send_to_all(self, delivery: Delivery, excluded: Collection[Connection]) -> None:
        window = self._window
        if opens := not window.is_open:
            window = self._window = FlushWindow.after(window, self.members)
        for member in excluded:
            member.detach(window)
        if opens and window.attached:
            for frames in window.frames.values():
                self._hub.scheduler.add(frames)
        elif opens:
            # No member is attached; empty frames must not keep members that leave in memory.
            window.frames.clear()
        encoded = EncodingCache(delivery.event, self._application)
        if window.attached:
            window.add(encoded)
        if window.apart:
            self._send_to_each(delivery, window.apart, excluded, encoded)

    def _send_to_each(
        self,
        delivery: Delivery,
        members: Iterable[SendQueue],
        excluded: Collection[SendQueue] = (),
        encoded: EncodingCache | None = None,
    ) -> None:
        if encoded is None:
            encoded = EncodingCache(delivery.event, self._application)
        seq, presence, volatile = delivery.seq, delivery.presence, delivery.volatile
        for member in members:
            if member in excluded or (frame := encoded[type(member.protocol)]) is None:
                continue
            if volatile and member.is_slow():
                self._hub.dropped["volatile"] += 1
            else:
                member.push(frame, self.key, seq, presence)
