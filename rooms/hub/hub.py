"""The groups of this process and the fan-out to them.

An event is encoded once for each protocol that is present, and written down once for all members who
hear the same (``batch.py``): no await, no task and no encoding per member. Numbered events pass a room's
sequencer first; who comes to a large room and who goes is gathered in ``crowd.py``. Next in the flow:
``outbox.py`` queues, ``flusher.py`` or ``node/session.py`` writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from rooms.hub.connection import Connection
from rooms.hub.group import Delivery, Group
from rooms.hub.send_queue import SendQueue
from rooms.hub.sequencer import Sequencer
from rooms.hub.shared_frames import EncodingCache, FlushWindow, SharedFrames
from rooms.protocol.events import Event, Joined, Left, Message
from rooms.protocol.types import Position

# Of digests that differ no more wait at once: each may have many kilobytes, and a crowd comes in a second.
DIGESTS_A_FLUSH = 32


class Hub:
    """Synchronous; belongs to one event loop.

    ``flush(batch)`` has what is told to many written soon.
    ``on_gap(group)`` is called when a numbered event cannot be told because one before it is missing,
    ``on_crowd(group)`` when somebody came or went whom ``tell_changes`` is to tell, because the group has
    more than ``large`` users.
    """

    def __init__(
        self,
        on_gap: Callable[[str], None] = lambda group: None,
        on_crowd: Callable[[str], None] = lambda group: None,
        large: int = 200,
        flush: Callable[[SharedFrames], None] = lambda batch: None,
    ) -> None:
        self._groups: dict[str, Group] = {}
        self._on_gap = on_gap
        self._on_crowd = on_crowd
        self._large = large
        self._flush = flush
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
        found = self._groups.setdefault(group, Group())
        found.add(connection)
        if connection.protocol.options.presence_events != "none":
            found.singly[connection] = None

    def group_discard(self, group: str, connection: Connection) -> bool:
        """Take a connection out. True when it was the group's last one here."""
        found = self._groups.get(group)
        if found is None or connection not in found.members:
            return False
        found.discard(connection)
        if not found.members:
            del self._groups[group]
            return True
        return False

    def group_send(
        self,
        group: str,
        event: Event,
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
        if not isinstance(event, Message):
            among = self._gather(group, found, event) if isinstance(event, (Joined, Left)) else None
            self._deliver(group, found, Delivery(event, None, exclude, only, among, volatile))
        elif event.seq is None:
            self._deliver(group, found, Delivery(event, None, exclude, only, None, volatile))
        else:
            numbered = Delivery(event, event.seq, exclude, only)
            self._deliver_all(group, found, found.sequencer.offer(event.seq, numbered))
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

    def epoch(self, group: str) -> str | None:
        """The epoch of the history whose numbers the group is told."""
        found = self._groups.get(group)
        return found.epoch if found else None

    def start(self, group: str, position: Position) -> None:
        """The room's history stands at ``position``: from here on its events are told in order."""
        found = self._groups.get(group)
        if found is not None and found.epoch is None:
            found.epoch = position.epoch
            self.skip(group, position.seq)

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
            found.epoch, found.sequencer = None, Sequencer()
            found.settling.clear()

    def skip_gap(self, group: str) -> None:
        """What is missing cannot be had: go on with what is there."""
        found = self._groups.get(group)
        if found is not None and (earliest := found.sequencer.earliest) is not None:
            self.skip(group, earliest - 1)

    def earliest(self, group: str) -> int | None:
        """The first number that waits behind what is missing."""
        found = self._groups.get(group)
        return found.sequencer.earliest if found else None

    def behind(self, group: str, position: int) -> list[Connection]:
        """The members who have not been told everything up to ``position``."""
        found = self._groups.get(group)
        if found is None or (found.sequencer.position or 0) >= position:
            return []
        return [member for member in found.members if found.settling.get(member, 0) < position]

    def settle(self, group: str, connection: Connection, position: int) -> None:
        """This member has been told everything up to ``position`` by the answer to its join."""
        connection.release(group, position)
        found = self._groups.get(group)
        if found and connection in found.members and (found.sequencer.position or 0) < position:
            found.settling[connection] = position

    # Large groups ------------------------------------------------------------------------------------

    def listed(
        self, group: str, connection: Connection, present: Collection[str], count: int, *, complete: bool
    ) -> None:
        """This member is being told who is in the group: ``count`` users, those with the ids ``present``
        among them, who are all if ``complete``."""
        connection.drop_told(group, present, complete=complete)
        found = self._groups.get(group)
        if found is None or connection not in found.members:
            return
        found.crowd.size = count
        if connection in found.singly and connection.protocol.options.presence_events == "diffs":
            del found.singly[connection]
            found.crowd.listed(connection)

    def changed(self, group: str) -> int | None:
        """The number of the last coming or going that waits to be told; None: nothing waits."""
        found = self._groups.get(group)
        return found.crowd.until if found else None

    def size(self, group: str) -> int:
        """How many users the group has, as far as is known here."""
        found = self._groups.get(group)
        return found.crowd.size if found else 0

    def tell_changes(
        self, group: str, until: int, count: int, flush: Callable[[], None] = lambda: None
    ) -> None:
        """Tell the members who came and went, up to the number ``until``, now that there are ``count``. Those
        who came meanwhile are told each something of their own: after a few ``flush`` is to write it."""
        found = self._groups.get(group)
        if found is None:
            return
        digests, known = found.crowd.take(until, count)
        if (digest := digests.after(0)) is not None:
            # Those who know all of it or some of it, or have heard each.
            without_list = {each for each in found.singly if each.protocol.options.presence_events == "diffs"}
            self._tell_together(group, found, Delivery(digest), without_list | known.keys())
        for number, (each, heard) in enumerate(known.items(), start=1):
            if (own := digests.after(heard)) is not None:
                self._tell_each(group, found, Delivery(own), (each,))
            if number % DIGESTS_A_FLUSH == 0:
                flush()

    def _gather(self, group: str, found: Group, event: Joined | Left) -> Collection[Connection] | None:
        """Those who are to be told at once who came or went; None: everybody."""
        crowd, waits = found.crowd, found.crowd.until is not None
        crowd.count(event)
        # What waits goes first: also in a group that is small by now.
        if not waits and crowd.size <= self._large:
            return None
        crowd.note(event)
        if not waits:
            self._on_crowd(group)
        return found.singly

    def _deliver_all(self, group: str, found: Group, numbered: list[Delivery]) -> None:
        for delivery in numbered:
            self._deliver(group, found, delivery)

    def _deliver(self, group: str, found: Group, delivery: Delivery) -> None:
        left_out: Collection[Connection] = () if delivery.exclude is None else (delivery.exclude,)
        if found.settling and delivery.seq is not None:
            left_out = {*left_out, *found.knowing(delivery.seq)}
        if delivery.only is not None:
            self._tell_each(group, found, delivery, found.of(set(delivery.only)), left_out)
        elif delivery.among is not None:
            self._tell_each(group, found, delivery, delivery.among, left_out)
        else:
            self._tell_together(group, found, delivery, left_out)

    def _tell_together(
        self, group: str, found: Group, delivery: Delivery, left_out: Collection[Connection]
    ) -> None:
        round = found.round
        if begins := not round.goes_on:
            round = found.round = FlushWindow.begun(found.members, round)
        for member in left_out:
            member.detach(round)
        if begins and round.attached:
            for batch in round.batches.values():
                self._flush(batch)
        elif begins:
            # Nobody hears its batches, which are not to keep who leaves.
            round.batches.clear()
        encoded = EncodingCache(delivery.event, found.application)
        if round.attached:
            round.add(encoded)
        if round.apart:
            self._tell_each(group, found, delivery, round.apart, left_out, encoded)

    def _tell_each(
        self,
        group: str,
        found: Group,
        delivery: Delivery,
        members: Iterable[SendQueue],
        left_out: Collection[SendQueue] = (),
        encoded: EncodingCache | None = None,
    ) -> None:
        if encoded is None:
            encoded = EncodingCache(delivery.event, found.application)
        seq, whose, volatile = delivery.seq, delivery.whose, delivery.volatile
        for member in members:
            if member in left_out or (frame := encoded[type(member.protocol)]) is None:
                continue
            if volatile and member.is_slow():
                self.dropped["volatile"] += 1
            else:
                member.push(frame, group, seq, whose)
