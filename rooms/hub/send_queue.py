"""The bounded send queue of one client: frames that wait to be written, in order.

Other code only puts frames in; ``node/session.py`` or ``write_scheduler.py`` takes them out. A client
without frames of its own shares those of its groups (``shared_frames.py``). Nothing here waits: the
queue of a client that does not read fills up and the client is closed; no other client is affected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import UNSET

from rooms.hub.shared_frames import FlushWindow, FrameWriter, SharedFrames, framed, joined
from rooms.protocol.base import Protocol
from rooms.protocol.commands import Command
from rooms.protocol.errors import CloseCode
from rooms.protocol.events import Closing, Event

logger = logging.getLogger("rooms.hub")

# This many frames may wait, whatever their size.
MIN_FRAMES = 4
# While a reply is pending, this many times the byte limit may be corked.
CORKED_FACTOR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SendQueueLimits:
    """What may wait for a client before it counts as too slow."""

    bytes: int = 1024 * 1024
    frames: int = 512


DEFAULT_LIMITS = SendQueueLimits()


class CorkedFrame(NamedTuple):
    """A pushed frame that waits until a reply is sent before it."""

    frame: bytes
    group: str | None
    seq: int | None
    # The user's id and whether the user joined, of a join or leave.
    presence: tuple[str, bool] | None


class SendQueue:
    """Belongs to one event loop: not thread-safe."""

    __slots__ = (
        "_bytes",
        "_corked",
        "_frames",
        "_limits",
        "_wake",
        "_writing_since",
        "close_code",
        "close_reason",
        "protocol",
        "shared",
        "writer",
    )

    def __init__(self, protocol: Protocol, limits: SendQueueLimits, wake: Callable[[], None]) -> None:
        self.protocol = protocol
        # What it shares with others; its protocol while it may share anything; None: it shares nothing.
        self.shared: SharedFrames | type[Protocol] | None = type(protocol)
        # Writes frames at once; None where a task of the session writes.
        self.writer: FrameWriter | None = None
        self.close_code: CloseCode | None = None
        self.close_reason = ""
        self._writing_since: float | None = None
        self._limits = limits
        self._wake = wake
        # Bytes of its own frames and of the corked ones; shared frames belong to their window.
        self._bytes = 0
        # Its own frames: none while it shares.
        self._frames: list[bytes] = []
        self._corked: list[CorkedFrame] | None = None

    @property
    def pending_bytes(self) -> int:
        return self._bytes + sum(each.size for each in self.shared_pending)

    @property
    def shared_pending(self) -> list[SharedFrames]:
        """The shared frames that are not written yet."""
        return list(self.shared.chain()) if isinstance(self.shared, SharedFrames) else []

    @property
    def writing_since(self) -> float | None:
        """When the write began that the client does not read; None: no write waits.

        The time is in seconds of the monotonic clock.
        """
        return self._writing_since

    @writing_since.setter
    def writing_since(self, since: float | None) -> None:
        self._writing_since = since
        if since is None:
            self._rejoin()
        else:
            self.separate()

    def switch_protocol(self, protocol: Protocol) -> None:
        """Encode all later events with another protocol."""
        self.separate()
        self.protocol = protocol
        self._rejoin()

    # Putting frames in -------------------------------------------------------------------------------

    def send(self, event: Event | Command) -> None:
        """Send an event to this client alone.

        The event is not corked: replies go before what they caused.
        """
        for frame in self.protocol.encode_all(event):
            self._put(frame)

    def notify(self, event: Event) -> None:
        """Send an event that is no reply to this client alone; it is corked as any push."""
        frame = self.protocol.encode(event)
        if frame is not None:
            self.push(frame)

    def push(
        self,
        frame: bytes,
        group: str | None = None,
        seq: int | None = None,
        presence: tuple[str, bool] | None = None,
    ) -> None:
        """Queue a frame that was encoded for a whole group.

        ``presence``: the user's id and whether the user joined, of a join or leave.
        """
        if self._is_closing():
            return
        if self._corked is not None:
            self._corked.append(CorkedFrame(frame, group, seq, presence))
            self._bytes += len(frame)
            if self._bytes > CORKED_FACTOR * self._limits.bytes:
                self._too_slow()
        else:
            self._put(frame)

    def is_slow(self) -> bool:
        """Whether more than half of the queue is taken.

        Volatile events are then dropped.
        """
        frames = len(self._frames) + sum(len(each.frames) for each in self.shared_pending)
        return self.pending_bytes * 2 > self._limits.bytes or frames * 2 > self._limits.frames

    # Sharing frames ----------------------------------------------------------------------------------

    def detach(self, window: FlushWindow) -> None:
        """Receive the rest of a window alone."""
        if isinstance(self.shared, SharedFrames) and self.shared.last.window is window:
            self.separate()
            self._rejoin()

    def separate(self) -> None:
        """Share no frames from here on; the shared frames so far become its own."""
        if self.shared is not None:
            self._take_over()
            if self._frames:
                self._wake()

    # Corking -----------------------------------------------------------------------------------------

    def cork(self) -> None:
        """Set pushes aside until ``uncork``, so that a reply can go before them."""
        if self._corked is None:
            self.separate()
            self._corked = []

    def uncork(self, group: str | None = None, until: int = 0) -> None:
        """Queue the corked pushes, except those of ``group`` up to the number ``until``.

        The reply has covered those already.
        """
        corked, self._corked = self._corked or [], None
        self._bytes -= sum(len(each.frame) for each in corked)
        for each in corked:
            if each.group is None or each.group != group or each.seq is None or each.seq > until:
                self._put(each.frame)
        self._rejoin()

    def drop_corked(self, group: str) -> None:
        """Drop the corked pushes of a group that the client did not join after all."""
        if self._corked is not None:
            dropped = [each for each in self._corked if each.group == group]
            self._corked = [each for each in self._corked if each.group != group]
            self._bytes -= sum(len(each.frame) for each in dropped)

    def drop_presence(self, group: str, present: Collection[str], *, complete: bool) -> None:
        """Drop the corked joins and leaves that a member list covers.

        ``present`` are the ids of the users on the list. A list that is not ``complete`` does not cover
        users that are not on it.
        """
        corked = self._corked or []
        # Of several changes of one user the last one counts.
        last = {
            each.presence[0]: each for each in corked if each.presence is not None and each.group == group
        }
        kept = []
        for each in corked:
            if each.presence is not None and each.group == group:
                user, joins = each.presence
                covered = user in present if joins else complete and user not in present
                if covered or last[user] is not each:
                    self._bytes -= len(each.frame)
                    continue
            kept.append(each)
        if self._corked is not None:
            self._corked = kept

    # Taking frames out -------------------------------------------------------------------------------

    def pop_all(self) -> list[bytes]:
        """Take everything that is to be written.

        The frames are joined into as few as the protocol allows.
        """
        return joined(self._pop_all(), self.protocol.separator)

    def pop_all_framed(self) -> list[bytes]:
        """The same as WebSocket frames, in one piece unless that is long."""
        frames = self._pop_all()
        return framed(frames, type(self.protocol)) if frames else frames

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called whenever there is something to be written."""
        self._wake = wake

    def _pop_all(self) -> list[bytes]:
        if self.shared is not None:
            self._take_over()
        frames, self._frames = self._frames, []
        self._bytes -= sum(map(len, frames))
        self._rejoin()
        return frames

    # Closing -----------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """Close a client that cannot be written to.

        The others are written to nevertheless.
        """
        logger.warning("Could not write to %r: %r", self, error)
        try:
            self.close(CloseCode.INTERNAL_ERROR, "Something could not be sent.", discard=True)
        except Exception:
            logger.exception("Could not close %r", self)

    def close(
        self, code: CloseCode, message: str, *, retry_in: float | None = None, discard: bool = False
    ) -> None:
        """Send ``closing`` and end the connection.

        What is queued goes first unless ``discard``.
        """
        if self.close_code is not None:
            return
        self.separate()
        if discard:
            self._frames, self._corked, self._bytes = [], None, 0
        elif self._corked is not None:
            # Pushes of groups wait for a reply that will not come; a client that resumes gets them again.
            self._bytes -= sum(len(each.frame) for each in self._corked if each.group is not None)
            self._corked = [each for each in self._corked if each.group is None]
            self.uncork()
        if self._is_closing():
            # The corked frames were too much, and closed it.
            return
        frame = self.protocol.encode(
            Closing(code=code, message=message, retry_in=UNSET if retry_in is None else retry_in)
        )
        if frame is not None:
            self._frames.append(frame)
            self._bytes += len(frame)
        self.close_code, self.close_reason, self.shared = code, message, None
        self._wake()

    def _is_closing(self) -> bool:
        return self.close_code is not None

    def _too_slow(self) -> None:
        self.close(CloseCode.SLOW_CONSUMER, "Too much was waiting to be read.", discard=True)

    # Inside ------------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Make the shared frames its own."""
        shared, self.shared = self.shared, None
        if isinstance(shared, SharedFrames):
            for each in shared.chain():
                self._frames += each.frames
                self._bytes += each.size
            each.window.leave(self)

    def _rejoin(self) -> None:
        """Share frames again, if no frame of its own comes before them."""
        alone = self._frames or self._corked is not None or self._writing_since is not None
        if self.shared is None and not alone and self.close_code is None:
            self.shared = type(self.protocol)

    def _put(self, frame: bytes) -> None:
        if self.close_code is not None:
            return
        if self.shared is not None:
            self.separate()
        self._frames.append(frame)
        self._bytes += len(frame)
        if len(self._frames) == 1:
            self._wake()
        elif self._writing_since is not None:
            self._check_limits(len(self._frames))

    def _check_limits(self, frames: int) -> None:
        # What is queued within one turn of the loop leaves with the next write, however much it is; only
        # what waits behind a write that does not end shows that the client is slow. And a few frames do
        # not show it, however large another client made them.
        if frames <= min(MIN_FRAMES, self._limits.frames):
            return
        if self._bytes > self._limits.bytes or frames > self._limits.frames:
            self._too_slow()
