"""The groups of this process and the fan-out to them.

An event is encoded once for each protocol that is present, and written down once for all members who
hear the same (``batch.py``): no await, no task and no encoding per member. Numbered events pass a room's
sequencer first. Next in the flow: ``outbox.py`` queues, ``flusher.py`` or ``serving.py`` writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from rooms.events import Joined, Left, Message, Push
from rooms.fanout.batch import Round
from rooms.fanout.connection import Connection
from rooms.fanout.sequencer import Sequencer
from rooms.protocols import Protocol


@dataclass(frozen=True, slots=True)
class _Delivery:
    event: Push
    exclude: Connection | None
    only: Collection[str] | None


class _Encoded(dict[type[Protocol], bytes | None]):
    """The frames of one event by protocol, each made when it is first asked for."""

    def __init__(self, event: Push, application: str) -> None:
        super().__init__()
        self._event = event
        self._application = application

    def __missing__(self, kind: type[Protocol]) -> bytes | None:
        frame = self[kind] = kind.broadcast(self._event, self._application)
        return frame


class _Group:
    __slots__ = ("members", "round", "sequencer", "settling")

    def __init__(self) -> None:
        self.members: dict[Connection, None] = {}
        self.sequencer: Sequencer[tuple[int, _Delivery]] = Sequencer()
        # Members whose join was answered with more than the group has been told so far.
        self.settling: dict[Connection, int] = {}
        # What is being written down for all of them.
        self.round = Round()

    @property
    def application(self) -> str:
        """All members are in the same."""
        return next(iter(self.members)).application


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
        found = self._groups.setdefault(group, _Group())
        if connection not in found.members:
            found.members[connection] = None
            if found.round.goes_on:
                found.round.apart[connection] = None

    def group_discard(self, group: str, connection: Connection) -> bool:
        """Take a connection out. True when it was the group's last one here."""
        found = self._groups.get(group)
        if found is None or connection not in found.members:
            return False
        del found.members[connection]
        connection.step_aside(found.round)
        found.round.apart.pop(connection, None)
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
        encoded = _Encoded(delivery.event, found.application)
        if delivery.only is not None or volatile or (found.settling and seq is not None):
            # What each is told depends on who it is.
            self._tell_each(group, found, delivery, encoded, seq, volatile)
        else:
            self._tell_together(group, found, delivery, encoded, seq)

    def _tell_together(
        self, group: str, found: _Group, delivery: _Delivery, encoded: _Encoded, seq: int | None
    ) -> None:
        exclude, whose = delivery.exclude, _whose(delivery.event)
        if not found.round.goes_on:
            found.round = _begin(found.members, encoded, exclude)
        elif exclude is not None:
            exclude.step_aside(found.round)
        for kind, batch in found.round.batches.items():
            if (frame := encoded[kind]) is not None:
                batch.add(frame)
        for member in found.round.apart:
            if member is not exclude and (frame := encoded[type(member.protocol)]) is not None:
                member.push(frame, group, seq, whose)

    def _tell_each(
        self,
        group: str,
        found: _Group,
        delivery: _Delivery,
        encoded: _Encoded,
        seq: int | None,
        volatile: bool,
    ) -> None:
        exclude, only, whose = delivery.exclude, delivery.only, _whose(delivery.event)
        settled = found.settling if seq is not None else {}
        for member in found.members:
            if member is exclude or (
                only is not None and (member.user is None or member.user.id not in only)
            ):
                continue
            if seq is not None and settled.get(member, 0) >= seq:
                continue
            frame = encoded[type(member.protocol)]
            if frame is None:
                continue
            if volatile and member.is_slow():
                self.dropped["volatile"] += 1
                continue
            member.push(frame, group, seq, whose)
        if seq is not None and settled:
            found.settling = {each: until for each, until in settled.items() if until > seq}


def _begin(members: Collection[Connection], encoded: _Encoded, exclude: Connection | None) -> Round:
    """A round that begins with this event; whoever cannot hear it with the others is apart."""
    begun = Round()
    for member in members:
        kind = type(member.protocol)
        if member is not exclude and encoded[kind] is not None and member.attach(begun.batch(kind)):
            begun.attached += 1
        else:
            begun.apart[member] = None
    return begun


def _whose(event: Push) -> tuple[str, bool] | None:
    """Whose coming or going (False) an event tells."""
    return (event.user.id, isinstance(event, Joined)) if isinstance(event, Joined | Left) else None
