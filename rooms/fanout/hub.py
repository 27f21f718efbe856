"""The groups of this process and the fan-out to them.

An event is encoded once for each protocol that is present and the bytes are handed to every
member's outbox: no await, no task and no encoding per member. Numbered events pass a room's
sequencer first. Next in the flow: ``connection.py`` queues, the consumer writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from rooms.events import Joined, Left, Message, Push
from rooms.fanout.connection import Connection
from rooms.fanout.sequencer import Sequencer
from rooms.protocols import Protocol


@dataclass(frozen=True, slots=True)
class _Delivery:
    event: Push
    exclude: Connection | None
    only: Collection[str] | None


class _Group:
    __slots__ = ("members", "sequencer", "settling")

    def __init__(self) -> None:
        self.members: dict[Connection, None] = {}
        self.sequencer: Sequencer[tuple[int, _Delivery]] = Sequencer()
        # Members whose join was answered with more than the group has been told so far.
        self.settling: dict[Connection, int] = {}


class Hub:
    """Synchronous; belongs to one event loop.

    ``on_gap(group)`` is called when a numbered event cannot be told because one before it is missing.
    """

    def __init__(self, on_gap: Callable[[str], None] = lambda group: None) -> None:
        self._groups: dict[str, _Group] = {}
        self._on_gap = on_gap
        # What was dropped, by name.
        self.dropped: Counter[str] = Counter()

    def __contains__(self, group: str) -> bool:
        return group in self._groups

    def groups(self) -> list[str]:
        return list(self._groups)

    def members(self, group: str) -> list[Connection]:
        """The group's connections in this process."""
        found = self._groups.get(group)
        return list(found.members) if found else []

    def group_add(self, group: str, connection: Connection) -> None:
        self._groups.setdefault(group, _Group()).members[connection] = None

    def group_discard(self, group: str, connection: Connection) -> bool:
        """Take a connection out. True when it was the group's last one here."""
        found = self._groups.get(group)
        if found is None or connection not in found.members:
            return False
        del found.members[connection]
        found.settling.pop(connection, None)
        if not found.members:
            del self._groups[group]
            return True
        return False

    def group_send(
        self,
        group: str,
        event: Push,
        *,
        exclude: Connection | None = None,
        only: Collection[str] | None = None,
        volatile: bool = False,
    ) -> None:
        """Tell every member, but for ``exclude``, or only users with these ids. Of numbered events
        each is told once and in order; a ``volatile`` one is not told to members who are behind."""
        found = self._groups.get(group)
        if found is None:
            return
        if not isinstance(event, Message) or event.seq is None:
            self._deliver(group, found, _Delivery(event, exclude, only), None, volatile)
            return
        numbered = found.sequencer.offer(event.seq, (event.seq, _Delivery(event, exclude, only)))
        self._deliver_all(group, found, numbered)
        if found.sequencer.has_gap:
            self._on_gap(group)

    def position(self, group: str) -> int | None:
        """The number of the last event that the group was told."""
        found = self._groups.get(group)
        return found.sequencer.position if found else None

    def missing_after(self, group: str) -> int | None:
        """Where the group waits for something that is missing: the number before it; else None."""
        found = self._groups.get(group)
        return found.sequencer.position if found and found.sequencer.has_gap else None

    def start(self, group: str, position: int) -> None:
        """The room's history stands at ``position``: from here on its events are told in order."""
        if self.position(group) is None:
            self.skip(group, position)

    def skip(self, group: str, position: int) -> None:
        """Nothing up to ``position`` is still to be told to the group."""
        found = self._groups.get(group)
        if found is not None:
            self._deliver_all(group, found, found.sequencer.start(position))
            if found.sequencer.has_gap:
                self._on_gap(group)

    def reset(self, group: str) -> None:
        """The room's numbers begin anew: forget where the group stands."""
        found = self._groups.get(group)
        if found is not None:
            found.sequencer = Sequencer()
            found.settling.clear()

    def skip_gap(self, group: str) -> None:
        """What is missing cannot be had: go on with what is there."""
        found = self._groups.get(group)
        if found is not None and (earliest := found.sequencer.earliest) is not None:
            self.skip(group, earliest - 1)

    def settle(self, group: str, connection: Connection, position: int) -> None:
        """This member has been told everything up to ``position`` by the answer to its join."""
        connection.release(group, position)
        found = self._groups.get(group)
        if found and connection in found.members and (found.sequencer.position or 0) < position:
            found.settling[connection] = position

    def _deliver_all(self, group: str, found: _Group, numbered: list[tuple[int, _Delivery]]) -> None:
        for seq, delivery in numbered:
            self._deliver(group, found, delivery, seq)

    def _deliver(
        self, group: str, found: _Group, delivery: _Delivery, seq: int | None, volatile: bool = False
    ) -> None:
        frames: dict[type[Protocol], bytes | None] = {}
        event, exclude, only = delivery.event, delivery.exclude, delivery.only
        settled = found.settling and seq is not None
        whose = _whose(event)
        for member in found.members:
            if member is exclude:
                continue
            if only is not None and (member.user is None or member.user.id not in only):
                continue
            if settled and seq is not None and found.settling.get(member, 0) >= seq:
                continue
            kind = type(member.protocol)
            if kind not in frames:
                frames[kind] = kind.broadcast(event, member.application)
            frame = frames[kind]
            if frame is None:
                continue
            if volatile and member.is_slow():
                self.dropped["volatile"] += 1
                continue
            member.push(frame, group, seq, whose)
        if settled and seq is not None:
            found.settling = {each: until for each, until in found.settling.items() if until > seq}


def _whose(event: Push) -> tuple[str, bool] | None:
    """Whose coming or going (False) an event tells."""
    return (event.user.id, isinstance(event, Joined)) if isinstance(event, Joined | Left) else None
