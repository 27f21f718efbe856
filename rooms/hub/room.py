"""A room in this process: its config, its members and the order of its events.

There is one object per room and process; memberships hold it. Numbered events pass the room's
sequencer first. A large room collects joins and leaves in ``presence_diff.py`` and sends them as
one diff per second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

from rooms.hub.application import Application, Runner
from rooms.hub.config import RoomConfig, room_group
from rooms.hub.connection import Connection
from rooms.hub.group import Delivery, Group, Hub
from rooms.hub.presence_diff import PresenceDiff
from rooms.hub.sequencer import Sequencer
from rooms.protocol.events import Event, Joined, Left, Message
from rooms.protocol.types import Position

# A diff that is sent to one member alone may have many kilobytes: the queues are flushed after this many.
DIFFS_PER_FLUSH = 32


class RoomListener(Protocol):
    """The node, as a room sees it. Both methods return at once."""

    def on_gap(self, room: Room) -> None:
        """A numbered event cannot be sent, because one before it is missing."""

    def on_presence_change(self, room: Room) -> None:
        """A join or leave is pending that the next diff of this large room has to send."""


class Room(Group):
    """Belongs to one event loop.

    ``runner`` runs the room's extension, ``context`` is the room as the extension sees it. A room
    with more than ``diff_threshold`` users sends joins and leaves as diffs.
    """

    __slots__ = (
        "_ahead",
        "_diff",
        "_diff_threshold",
        "_individually",
        "_listener",
        "_sequencer",
        "application",
        "config",
        "context",
        "epoch",
        "joining",
        "last_used",
        "lock",
        "name",
        "previous_config",
        "removed",
        "runner",
    )

    def __init__(
        self,
        hub: Hub,
        application: Application,
        config: RoomConfig,
        *,
        listener: RoomListener,
        runner: Runner,
        context: Any,
        diff_threshold: int = 200,
    ) -> None:
        super().__init__(hub, room_group(config.id))
        self.application = application
        self.config = config
        # A room that gets another name becomes another object.
        self.name = config.name
        self.runner = runner
        self.context = context
        self._listener = listener
        self._diff_threshold = diff_threshold
        self.last_used = time.monotonic()
        # Joins and the removal of the empty room exclude each other.
        self.lock = asyncio.Lock()
        # Joins under way: the room stays subscribed on the channel layer while there are any.
        self.joining = 0
        # The config before a change that is applied to `config`, but not yet to the members.
        self.previous_config: RoomConfig | None = None
        self.removed = False
        self._reset()

    def _reset(self) -> None:
        """The state of a room without members in this process."""
        # The epoch of the history that numbers the events; None until the history was read.
        self.epoch: str | None = None
        self._sequencer: Sequencer[Delivery] = Sequencer()
        # Members whose join reply covered more than the room has sent so far, up to that number.
        self._ahead: dict[Connection, int] = {}
        self._diff = PresenceDiff()
        # Members that receive each join and leave, however large the room is: because their protocol
        # requires it, or because they have no member list yet.
        self._individually: dict[Connection, None] = {}

    @property
    def runners(self) -> tuple[Runner, Runner]:
        """The extension runners that decide about an event in the room, in this order."""
        return self.runner, self.application.runner

    @property
    def is_open(self) -> bool:
        """Whether it exists, in an application that is enabled."""
        return not self.removed and self.application.config.enabled

    @property
    def in_use(self) -> bool:
        """Whether it has members in this process, or a join is under way."""
        return bool(self.members or self.joining)

    def add(self, connection: Connection) -> None:
        super().add(connection)
        if connection.protocol.options.presence_events != "none":
            self._individually[connection] = None

    def discard(self, connection: Connection) -> bool:
        if connection not in self.members:
            return False
        self._individually.pop(connection, None)
        self._diff.forget(connection)
        self._ahead.pop(connection, None)
        if last := super().discard(connection):
            self._reset()
        return last

    def broadcast(
        self,
        event: Event,
        *,
        exclude: Connection | None = None,
        only: Collection[str] | None = None,
        volatile: bool = False,
    ) -> None:
        """As for a group; each numbered message is sent once and in order."""
        if not self.members:
            return
        if not isinstance(event, Message):
            among = self._collect(event) if isinstance(event, (Joined, Left)) else None
            self._deliver(Delivery(event, None, exclude, only, among, volatile))
        elif event.seq is None:
            self._deliver(Delivery(event, None, exclude, only, None, volatile))
        else:
            ready = self._sequencer.offer(event.seq, Delivery(event, event.seq, exclude, only))
            for delivery in ready:
                self._deliver(delivery)
            if self._sequencer.has_gap:
                self._listener.on_gap(self)

    def _deliver(self, delivery: Delivery) -> None:
        excluded: Collection[Connection] = () if delivery.exclude is None else (delivery.exclude,)
        if self._ahead and delivery.seq is not None:
            excluded = {*excluded, *self._members_ahead(delivery.seq)}
        self._deliver_to(delivery, excluded)

    # Sequence numbers --------------------------------------------------------------------------------

    @property
    def position(self) -> int | None:
        """The sequence number of the last message that was sent to the members."""
        return self._sequencer.position

    @property
    def gap_start(self) -> int | None:
        """The number before the first that is missing; None where nothing is missing."""
        return self._sequencer.position if self._sequencer.has_gap else None

    @property
    def earliest_pending(self) -> int | None:
        """The first number that waits behind a gap."""
        return self._sequencer.earliest

    def start(self, position: Position) -> None:
        """Begin at the position of the room's history: later messages are sent in order."""
        if self.members and self.epoch is None:
            self.epoch = position.epoch
            self.advance_to(position.seq)

    def advance_to(self, seq: int) -> None:
        """Skip what is missing up to ``seq``, and send what may follow."""
        if not self.members:
            return
        for delivery in self._sequencer.start(seq):
            self._deliver(delivery)
        if self._sequencer.has_gap:
            self._listener.on_gap(self)

    def reset_position(self) -> None:
        """Forget the position: the history begins a new epoch."""
        self.epoch, self._sequencer = None, Sequencer()
        self._ahead.clear()

    def members_behind(self, seq: int) -> list[Connection]:
        """The members that have not received every message up to ``seq``."""
        if (self._sequencer.position or 0) >= seq:
            return []
        return [member for member in self.members if self._ahead.get(member, 0) < seq]

    def mark_synced(self, connection: Connection, seq: int) -> None:
        """Uncork a member whose join reply covered every message up to ``seq``."""
        connection.uncork(self.key, seq)
        if connection in self.members and (self._sequencer.position or 0) < seq:
            self._ahead[connection] = seq

    def _members_ahead(self, seq: int) -> list[Connection]:
        """The members whose join reply covered the message ``seq``.

        Forgets those members whose reply covered nothing after it.
        """
        ahead = [member for member, until in self._ahead.items() if until >= seq]
        self._ahead = {member: until for member, until in self._ahead.items() if until > seq}
        return ahead

    # Presence ----------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """The number of users in all processes, as far as this process knows."""
        return self._diff.size

    @property
    def pending_diff(self) -> int | None:
        """The number of the last join or leave that waits for the next diff.

        None where nothing waits.
        """
        return self._diff.until

    def mark_members_sent(
        self, connection: Connection, present: Collection[str], count: int, *, complete: bool
    ) -> None:
        """Note that a member is about to receive the member list.

        ``present`` are the ids of the users on the list, ``count`` the number of users in the room;
        ``complete``: the list has all of them.
        """
        connection.drop_presence(self.key, present, complete=complete)
        if connection not in self.members:
            return
        self._diff.size = count
        if connection in self._individually and connection.protocol.options.presence_events == "diffs":
            del self._individually[connection]
            self._diff.mark_listed(connection)

    def flush_diff(self, until: int, count: int, flush: Callable[[], None] = lambda: None) -> None:
        """Send the pending joins and leaves up to the number ``until`` to the members.

        ``count`` is the number of users now. A member that joined meanwhile receives a diff of its own;
        ``flush`` is called after every few of these.
        """
        if not self.members:
            return
        diffs, known = self._diff.take(until, count)
        if (diff := diffs.after(0)) is not None:
            # Not to members that know a part of it, nor to those that received each change.
            without_list = {
                each for each in self._individually if each.protocol.options.presence_events == "diffs"
            }
            self._send_to_all(Delivery(diff), without_list | known.keys())
        for number, (member, seen) in enumerate(known.items(), start=1):
            if (own := diffs.after(seen)) is not None:
                self._send_to_each(Delivery(own), (member,))
            if number % DIFFS_PER_FLUSH == 0:
                flush()

    def _collect(self, event: Joined | Left) -> Collection[Connection] | None:
        """Keep a join or leave for the next diff.

        Returns the members that receive it now; None stands for all.
        """
        diff, pending = self._diff, self._diff.until is not None
        diff.count(event)
        # What is pending goes first, also in a room that has become small.
        if not pending and diff.size <= self._diff_threshold:
            return None
        diff.note(event)
        if not pending:
            self._listener.on_presence_change(self)
        return self._individually
