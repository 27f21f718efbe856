"""What a group is told in one turn of the loop, written down once for all members who hear nothing else.

A round begins with the first event and goes on until the first member's outbox is written. Meanwhile an event
costs one entry for each protocol, not one for each member. Whoever is told something else in between
steps aside, and is told the rest of the round alone; so everybody hears everything in order.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Self

from rooms import frames
from rooms.events import Push
from rooms.protocols import Protocol

if TYPE_CHECKING:
    from rooms.fanout.outbox import Outbox

# Frames that may leave as one are joined up to this size; many clients refuse frames above 1 MiB.
LONGEST_JOINED_FRAME = 64 * 1024
# What is written at once for everybody is not longer by more than one event.
LONGEST_ROUND = 256 * 1024


class Encoded(dict[type[Protocol], bytes | None]):
    """The frames of one event by protocol, each made when it is first asked for."""

    def __init__(self, event: Push, application: str) -> None:
        super().__init__()
        self._event = event
        self._application = application

    def __missing__(self, kind: type[Protocol]) -> bytes | None:
        frame = self[kind] = kind.broadcast(self._event, self._application)
        return frame


class Round:
    """Of one group. So many members are ``attached`` to its batches; those ``apart`` are told alone."""

    __slots__ = ("apart", "attached", "batches", "open")

    def __init__(self) -> None:
        self.open = True
        self.attached = 0
        self.batches: dict[type[Protocol], Batch] = {}
        self.apart: dict[Outbox, None] = {}

    @classmethod
    def begun(cls, members: Collection[Outbox], encoded: Encoded, exclude: Outbox | None) -> Self:
        """A round that begins with this event; whoever cannot hear it with the others is apart."""
        begun, kind, batch = cls(), None, None
        for member in members:
            # Mostly all speak the same.
            if type(member.protocol) is not kind and member is not exclude:
                kind = type(member.protocol)
                batch = None if encoded[kind] is None else begun.batch(kind)
            if batch is not None and member is not exclude and member.attach(batch):
                begun.attached += 1
            else:
                begun.apart[member] = None
        return begun

    @property
    def goes_on(self) -> bool:
        """Somebody would hear what is added now."""
        return self.open and self.attached > 0

    def batch(self, kind: type[Protocol]) -> Batch:
        """What members with this protocol are told."""
        batch = self.batches.get(kind)
        if batch is None:
            batch = self.batches[kind] = Batch(self, kind)
        return batch

    def add(self, encoded: Encoded) -> None:
        """Tell all who are attached."""
        for kind, batch in self.batches.items():
            if (frame := encoded[kind]) is not None:
                batch.add(frame)

    def join(self, member: Outbox) -> None:
        """Somebody new hears what is left of it."""
        if self.goes_on:
            self.apart[member] = None

    def discard(self, member: Outbox) -> None:
        """Somebody hears no more of it."""
        member.step_aside(self)
        self.apart.pop(member, None)

    def end(self) -> None:
        """What follows is for the next round. Those who have yet to read hold on to their batch."""
        self.open = False
        self.batches, self.apart = {}, {}

    def leave(self, member: Outbox) -> None:
        """Somebody who was attached is told the rest alone."""
        self.apart[member] = None
        self.attached -= 1


class Batch:
    """Frames of one protocol."""

    __slots__ = ("_framed", "_kind", "frames", "round", "size")

    def __init__(self, round: Round, kind: type[Protocol]) -> None:
        self.round = round
        self.frames: list[bytes] = []
        self.size = 0
        self._kind = kind
        self._framed = b""

    def add(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.size += len(frame)
        if self.size > LONGEST_ROUND:
            self.round.open = False

    def ended(self) -> list[bytes]:
        """All of it; nothing is added any more."""
        if self.round.open or self.round.batches:
            self.round.end()
        return self.frames

    def framed(self) -> bytes:
        """The same as WebSocket frames; made once."""
        if not self._framed:
            self._framed = framed(self.ended(), self._kind)
        return self._framed


def joined(said: list[bytes], separator: bytes | None) -> list[bytes]:
    """As few frames as the protocol allows."""
    if separator is None or len(said) < 2:
        return said
    whole: list[bytes] = []
    part: list[bytes] = []
    size = 0
    for frame in said:
        if part and size + len(frame) > LONGEST_JOINED_FRAME:
            whole.append(separator.join(part))
            part, size = [], 0
        part.append(frame)
        size += len(frame) + 1
    whole.append(separator.join(part))
    return whole


def framed(said: list[bytes], kind: type[Protocol]) -> bytes:
    """WebSocket frames in one piece."""
    opcode = frames.BINARY if kind.binary else frames.TEXT
    return b"".join([frames.frame(opcode, each) for each in joined(said, kind.separator)])
