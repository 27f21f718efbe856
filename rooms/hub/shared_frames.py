"""Frames of one group, framed once for all members that receive the same bytes.

A flush window opens with the first event and closes when the write scheduler reaches its frames.
Meanwhile an event costs one entry per protocol, not one per member. A member that is sent something
else in between detaches and receives the rest of the window alone, so every member receives its
events in order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, Self
from typing import Protocol as Structural

from rooms.protocol import frame_protocol
from rooms.protocol.base import Protocol
from rooms.protocol.events import Event, Members

logger = logging.getLogger("rooms.hub")

# Frames that may leave as one are joined up to this size; many clients refuse frames above 1 MiB.
MAX_JOINED_FRAME = 64 * 1024
# Frames that are not longer together leave in one write.
MAX_WRITE = 64 * 1024
# A window closes with the event that makes it longer than this.
MAX_WINDOW = 256 * 1024


class FrameWriter(Structural):
    """Writes whole WebSocket frames: the scope extension of ``server/websocket.py``."""

    def write(self, data: bytes, /) -> bool: ...

    def on_drained(self, call: Callable[[], None], /) -> None: ...

    def close(self, code: int, reason: str, /) -> None: ...


class Member(Structural):
    """A send queue, as a window sees it."""

    shared: SharedFrames | type[Protocol] | None
    writer: FrameWriter | None
    writing_since: float | None

    def detach(self, window: FlushWindow) -> None: ...

    def separate(self) -> None: ...

    def fail(self, error: Exception) -> None: ...

    def __hash__(self) -> int: ...


class EncodingCache(dict[type[Protocol], bytes | None]):
    """The frames of one event by protocol, each encoded on first access."""

    def __init__(self, event: Event, application: str) -> None:
        self._event = event
        self._application = application

    def __missing__(self, kind: type[Protocol]) -> bytes | None:
        frame = None
        # Only some protocols have a diff.
        if kind.options.presence_events == "diffs" or not isinstance(self._event, Members):
            try:
                frame = kind.encode_broadcast(self._event, self._application)
            except Exception:
                # Members with another protocol, and later events, must not be affected.
                logger.exception("%s cannot be encoded for %s", type(self._event).__name__, kind.__name__)
        self[kind] = frame
        return frame


class FlushWindow:
    """Of one group.

    ``attached`` counts the members of its frames; those in ``apart`` are sent each event alone.
    """

    __slots__ = ("accepting", "apart", "attached", "frames")

    def __init__(self) -> None:
        self.accepting = True
        self.attached = 0
        # What is not written yet, by protocol.
        self.frames: dict[type[Protocol], SharedFrames] = {}
        self.apart: dict[Any, None] = {}

    @classmethod
    def after(cls, before: FlushWindow, members: Collection[Member]) -> Self:
        """Open the window that follows another.

        A member that has not been written the earlier one receives this one behind it; a member that
        cannot share is apart.
        """
        window = cls()
        if before.attached:
            for kind, frames in before.frames.items():
                frames.next = window.frames_for(kind)
        # Not what any member shares.
        current: object = window
        for member in members:
            # Mostly all members have the same protocol and nothing pending.
            if (shared := member.shared) is not current:
                if shared is None or isinstance(shared, SharedFrames):
                    window._follow(member, shared)
                    continue
                current, frames = shared, window.frames_for(shared)
                attach = frames.members.append
            member.shared = frames
            attach(member)
        window.attached = len(members) - len(window.apart)
        return window

    @property
    def is_open(self) -> bool:
        """Whether a member would receive what is added now."""
        return self.accepting and self.attached > 0

    def frames_for(self, kind: type[Protocol]) -> SharedFrames:
        """The frames of the members with this protocol."""
        frames = self.frames.get(kind)
        if frames is None:
            frames = self.frames[kind] = SharedFrames(self, kind)
        return frames

    def add(self, encoded: EncodingCache) -> None:
        """Add an event for all attached members."""
        for kind, frames in self.frames.items():
            if (frame := encoded[kind]) is not None:
                frames.add(frame)

    def join(self, member: Member) -> None:
        """Add a new member, which receives the rest of the window."""
        if self.is_open:
            self.apart[member] = None

    def discard(self, member: Member) -> None:
        """Remove a member, which receives no more of the window."""
        member.detach(self)
        self.apart.pop(member, None)

    def leave(self, member: Member) -> None:
        """Send the rest of the window to an attached member alone."""
        self.apart[member] = None
        self.attached -= 1

    def mark_written(self, frames: SharedFrames) -> None:
        """All members of these frames have received them."""
        self.frames.pop(frames.kind, None)

    def _follow(self, member: Member, shared: SharedFrames | None) -> None:
        if shared is not None and (last := shared.last).window is self:
            last.members.append(member)
        else:
            self.apart[member] = None


class SharedFrames:
    """Frames of one protocol for the members that share them.

    They are for those ``members`` that still share them at the write. ``next`` is what they share
    then, if more events were added meanwhile.
    """

    __slots__ = ("_done", "_framed", "frames", "kind", "members", "next", "size", "unwritten", "window")

    def __init__(self, window: FlushWindow, kind: type[Protocol]) -> None:
        self.window = window
        self.kind = kind
        self.members: list[Member] = []
        self.frames: list[bytes] = []
        self.size = 0
        self.next: SharedFrames | None = None
        self.unwritten = True
        self._done = 0
        self._framed = b""

    def chain(self) -> Iterator[SharedFrames]:
        """What its members share, to the end."""
        frames: SharedFrames | None = self
        while frames is not None:
            yield frames
            frames = frames.next

    @property
    def last(self) -> SharedFrames:
        *_, last = self.chain()
        return last

    def add(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.size += len(frame)
        if self.size > MAX_WINDOW:
            self.window.accepting = False

    def flush(self, limit: int) -> int:
        """Write to at most ``limit`` members. Returns to how many.

        While others are left it is ``unwritten``; events of the meantime open the next window.
        """
        if not self._done:
            self.window.accepting = False
            self._framed = b"".join(framed(self.frames, self.kind))
        piece, after = self._framed, self.next or self.kind
        members = self.members[self._done : self._done + limit]
        for member in members:
            if member.shared is not self:
                continue
            if (writer := member.writer) is None:
                member.separate()
                continue
            member.shared = after
            try:
                # The protocol may have no frame for any of the events.
                if piece and not writer.write(piece):
                    member.writing_since = time.monotonic()
            except Exception as error:
                member.fail(error)
        self._done += len(members)
        if self._done == len(self.members):
            self.unwritten = False
            self.window.mark_written(self)
        return len(members)


def joined(frames: list[bytes], separator: bytes | None) -> list[bytes]:
    """Join messages into as few frames as the protocol allows."""
    if separator is None or len(frames) < 2:
        return frames
    if sum(map(len, frames)) + len(frames) <= MAX_JOINED_FRAME:
        return [separator.join(frames)]
    whole: list[bytes] = []
    part: list[bytes] = []
    size = 0
    for frame in frames:
        if part and size + len(frame) > MAX_JOINED_FRAME:
            whole.append(separator.join(part))
            part, size = [], 0
        part.append(frame)
        size += len(frame) + 1
    whole.append(separator.join(part))
    return whole


def framed(frames: list[bytes], kind: type[Protocol]) -> list[bytes]:
    """Encode as WebSocket frames, in one piece unless that is long."""
    opcode = frame_protocol.BINARY if kind.binary else frame_protocol.TEXT
    if len(frames) == 1:
        return [frame_protocol.frame(opcode, frames[0])]
    pieces = [frame_protocol.frame(opcode, each) for each in joined(frames, kind.separator)]
    return [b"".join(pieces)] if len(pieces) > 1 and sum(map(len, pieces)) <= MAX_WRITE else pieces
