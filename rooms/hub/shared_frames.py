"""What a group is told in two turns of the loop, written down once for all members who hear nothing else.

A round begins with the first event and goes on until the flusher comes to its batches. Meanwhile an event
costs one entry for each protocol, not one for each member. Whoever is told something else in between
steps aside, and is told the rest of the round alone; so everybody hears everything in order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Self
from typing import Protocol as Structural

from rooms.protocol import frame_protocol
from rooms.protocol.base import Protocol
from rooms.protocol.events import Event, Members

if TYPE_CHECKING:
    from rooms.hub.send_queue import SendQueue

logger = logging.getLogger("rooms.hub")

# Frames that may leave as one are joined up to this size; many clients refuse frames above 1 MiB.
LONGEST_JOINED_FRAME = 64 * 1024
# Pieces that are no longer together leave in one write.
LONGEST_WRITE = 64 * 1024
# What is written at once for everybody is not longer by more than one event.
LONGEST_ROUND = 256 * 1024


class Wire(Structural):
    """Where whole WebSocket frames are written: the scope extension of ``server/websocket.py``."""

    def write(self, data: bytes, /) -> bool: ...

    def on_drained(self, call: Callable[[], None], /) -> None: ...

    def close(self, code: int, reason: str, /) -> None: ...


class EncodingCache(dict[type[Protocol], bytes | None]):
    """The frames of one event by protocol, each made when it is first asked for."""

    def __init__(self, event: Event, application: str) -> None:
        self._event = event
        self._application = application

    def __missing__(self, kind: type[Protocol]) -> bytes | None:
        frame = None
        # Digests are for those who have the word for them.
        if kind.options.presence_events == "diffs" or not isinstance(self._event, Members):
            try:
                frame = kind.encode_broadcast(self._event, self._application)
            except Exception:
                # Neither those who speak another protocol nor what follows are to miss anything by it.
                logger.exception("%s cannot be told in %s", type(self._event).__name__, kind.__name__)
        self[kind] = frame
        return frame


class FlushWindow:
    """Of one group. So many members are ``attached`` to its batches; those ``apart`` are told alone."""

    __slots__ = ("apart", "attached", "batches", "open")

    def __init__(self) -> None:
        self.open = True
        self.attached = 0
        # Those that have yet to be written, by protocol.
        self.batches: dict[type[Protocol], SharedFrames] = {}
        self.apart: dict[SendQueue, None] = {}

    @classmethod
    def begun(cls, members: Collection[SendQueue], before: FlushWindow) -> Self:
        """The round that follows on another. Whoever has yet to hear that one hears this one behind it;
        whoever cannot hear it with the others is apart."""
        begun = cls()
        if before.attached:
            for heard, batch in before.batches.items():
                batch.next = begun.batch(heard)
        # Nothing that anybody hears.
        kind: object = begun
        for member in members:
            # Mostly all speak the same and have nothing to hear.
            if (hears := member.hears) is not kind:
                if hears is None or isinstance(hears, SharedFrames):
                    begun._follow(member, hears)
                    continue
                kind, batch = hears, begun.batch(hears)
                listens = batch.members.append
            member.hears = batch
            listens(member)
        begun.attached = len(members) - len(begun.apart)
        return begun

    @property
    def goes_on(self) -> bool:
        """Somebody would hear what is added now."""
        return self.open and self.attached > 0

    def batch(self, kind: type[Protocol]) -> SharedFrames:
        """What members with this protocol are told."""
        batch = self.batches.get(kind)
        if batch is None:
            batch = self.batches[kind] = SharedFrames(self, kind)
        return batch

    def add(self, encoded: EncodingCache) -> None:
        """Tell all who are attached."""
        for kind, batch in self.batches.items():
            if (frame := encoded[kind]) is not None:
                batch.add(frame)

    def join(self, member: SendQueue) -> None:
        """Somebody new hears what is left of it."""
        if self.goes_on:
            self.apart[member] = None

    def discard(self, member: SendQueue) -> None:
        """Somebody hears no more of it."""
        member.detach(self)
        self.apart.pop(member, None)

    def leave(self, member: SendQueue) -> None:
        """Somebody who was attached is told the rest alone."""
        self.apart[member] = None
        self.attached -= 1

    def written(self, batch: SharedFrames) -> None:
        """All who listened to this batch have it."""
        self.batches.pop(batch.kind, None)

    def _follow(self, member: SendQueue, hears: SharedFrames | None) -> None:
        if hears is not None and (last := hears.last).round is self:
            last.members.append(member)
        else:
            self.apart[member] = None


class SharedFrames:
    """Frames of one protocol, for those ``members`` who still hear it when it is written. ``next`` is what
    they hear then, if more has been said meanwhile."""

    __slots__ = ("_done", "_framed", "frames", "kind", "members", "next", "round", "size", "unwritten")

    def __init__(self, round: FlushWindow, kind: type[Protocol]) -> None:
        self.round = round
        self.kind = kind
        self.members: list[SendQueue] = []
        self.frames: list[bytes] = []
        self.size = 0
        self.next: SharedFrames | None = None
        self.unwritten = True
        self._done = 0
        self._framed = b""

    def chain(self) -> Iterator[SharedFrames]:
        """What its members hear, to the end."""
        batch: SharedFrames | None = self
        while batch is not None:
            yield batch
            batch = batch.next

    @property
    def last(self) -> SharedFrames:
        """What its members hear in the end."""
        *_, last = self.chain()
        return last

    def add(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.size += len(frame)
        if self.size > LONGEST_ROUND:
            self.round.open = False

    def flush(self, most: int) -> int:
        """Write to at most so many members. Returns to how many; as long as there are others it is
        ``unwritten``, and what is said meanwhile is for the next round."""
        if not self._done:
            self.round.open = False
            self._framed = b"".join(framed(self.frames, self.kind))
        piece, after = self._framed, self.next or self.kind
        members = self.members[self._done : self._done + most]
        for member in members:
            if member.hears is not self:
                continue
            if (wire := member.wire) is None:
                member.be_alone()
                continue
            member.hears = after
            try:
                # Where nobody has a word for what was said there is nothing to write.
                if piece and not wire.write(piece):
                    member.writing_since = time.monotonic()
            except Exception as error:
                member.fail(error)
        self._done += len(members)
        if self._done == len(self.members):
            self.unwritten = False
            self.round.written(self)
        return len(members)


def joined(said: list[bytes], separator: bytes | None) -> list[bytes]:
    """As few frames as the protocol allows."""
    if separator is None or len(said) < 2:
        return said
    if sum(map(len, said)) + len(said) <= LONGEST_JOINED_FRAME:
        return [separator.join(said)]
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


def framed(said: list[bytes], kind: type[Protocol]) -> list[bytes]:
    """WebSocket frames, in one piece unless that is long."""
    opcode = frame_protocol.BINARY if kind.binary else frame_protocol.TEXT
    if len(said) == 1:
        return [frame_protocol.frame(opcode, said[0])]
    pieces = [frame_protocol.frame(opcode, each) for each in joined(said, kind.separator)]
    return [b"".join(pieces)] if len(pieces) > 1 and sum(map(len, pieces)) <= LONGEST_WRITE else pieces
