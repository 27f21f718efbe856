"""The bounded outbox of one client: what it has yet to be told, in order.

Everybody only puts frames in; ``node/session.py`` takes them out, or ``flusher.py`` does. Who has nothing of its
own to be told hears what its group is told together (``batch.py``). Nothing here waits: a client that does
not read fills its own outbox and is closed, nobody else notices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import UNSET

from rooms.hub.shared_frames import FlushWindow, SharedFrames, Wire, framed, joined
from rooms.protocol.base import Protocol
from rooms.protocol.commands import Command
from rooms.protocol.errors import CloseCode
from rooms.protocol.events import Closing, Event

logger = logging.getLogger("rooms.hub")

# So many may wait, whatever their size.
FEW_FRAMES = 4
# Behind an answer that takes its time so many outboxes may wait.
MOST_HELD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SendQueueLimits:
    """How much may wait for a client before it counts as too slow."""

    bytes: int = 1024 * 1024
    frames: int = 512


DEFAULT_LIMITS = SendQueueLimits()


class CorkedFrame(NamedTuple):
    """A push that waits for an answer to go before it."""

    frame: bytes
    group: str | None
    seq: int | None
    whose: tuple[str, bool] | None


class SendQueue:
    """What waits for one client. Not thread-safe: its event loop's own."""

    __slots__ = (
        "_bytes",
        "_frames",
        "_held",
        "_limits",
        "_wake",
        "_writing_since",
        "close_code",
        "close_reason",
        "hears",
        "protocol",
        "wire",
    )

    def __init__(self, protocol: Protocol, limits: SendQueueLimits, wake: Callable[[], None]) -> None:
        self.protocol = protocol
        # What it hears together with others; its protocol while it may hear anything; None: it is told alone.
        self.hears: SharedFrames | type[Protocol] | None = type(protocol)
        # Where it is written to at once, if it can be.
        self.wire: Wire | None = None
        self.close_code: CloseCode | None = None
        self.close_reason = ""
        self._writing_since: float | None = None
        self._limits = limits
        self._wake = wake
        # Bytes of the client's own frames and of what is held; batches belong to their round.
        self._bytes = 0
        # What it is told alone: none while it hears what others hear.
        self._frames: list[bytes] = []
        self._held: list[CorkedFrame] | None = None

    @property
    def waiting(self) -> int:
        """Bytes that wait to be written."""
        return self._bytes + sum(each.size for each in self.shared)

    @property
    def shared(self) -> list[SharedFrames]:
        """What it has yet to be told together with others."""
        return list(self.hears.chain()) if isinstance(self.hears, SharedFrames) else []

    @property
    def writing_since(self) -> float | None:
        """Monotonic, while something is being written that the client does not take."""
        return self._writing_since

    @writing_since.setter
    def writing_since(self, since: float | None) -> None:
        self._writing_since = since
        if since is None:
            self._be_free()
        else:
            self.be_alone()

    def speak(self, protocol: Protocol) -> None:
        """Be told everything in another protocol from here on."""
        self.be_alone()
        self.protocol = protocol
        self._be_free()

    def send(self, event: Event | Command) -> None:
        """Tell this client alone. Not held back: answers go before what they caused."""
        for frame in self.protocol.encode_all(event):
            self._put(frame)

    def push(
        self,
        frame: bytes,
        group: str | None = None,
        seq: int | None = None,
        whose: tuple[str, bool] | None = None,
    ) -> None:
        """Queue a frame that was encoded for a whole group; ``whose`` coming (True) or going it tells."""
        if self._is_closing():
            return
        if self._held is not None:
            self._held.append(CorkedFrame(frame, group, seq, whose))
            self._bytes += len(frame)
            if self._bytes > MOST_HELD * self._limits.bytes:
                self._too_slow()
        else:
            self._put(frame)

    def detach(self, round: FlushWindow) -> None:
        """Be told the rest of the round by itself."""
        if isinstance(self.hears, SharedFrames) and self.hears.last.round is round:
            self.be_alone()
            self._be_free()

    def be_alone(self) -> None:
        """Hear nothing together with others from here on; what was heard so far is kept."""
        if self.hears is not None:
            self._leave()
            if self._frames:
                self._wake()

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Have it called whenever there is something to be written, instead of what was called so far."""
        self._wake = wake

    def notify(self, event: Event) -> None:
        """Tell this client alone of something that is no answer: held back like any push."""
        frame = self.protocol.encode(event)
        if frame is not None:
            self.push(frame)

    def is_slow(self) -> bool:
        """More than half of the outbox is taken: what may be dropped is dropped."""
        frames = len(self._frames) + sum(len(each.frames) for each in self.shared)
        return self.waiting * 2 > self._limits.bytes or frames * 2 > self._limits.frames

    def hold(self) -> None:
        """Queue pushes aside until ``release``, so that an answer can go before them."""
        if self._held is None:
            self.be_alone()
            self._held = []

    def release(self, group: str | None = None, until: int = 0) -> None:
        """Let held pushes follow, but for those of ``group`` up to the number ``until``, which the
        answer has already told."""
        held, self._held = self._held or [], None
        self._bytes -= sum(len(each.frame) for each in held)
        for each in held:
            if each.group is None or each.group != group or each.seq is None or each.seq > until:
                self._put(each.frame)
        self._be_free()

    def drop_held(self, group: str) -> None:
        """Leave out what is held of a group into which the client did not come after all."""
        if self._held is not None:
            dropped = [each for each in self._held if each.group == group]
            self._held = [each for each in self._held if each.group != group]
            self._bytes -= sum(len(each.frame) for each in dropped)

    def drop_told(self, group: str, present: Collection[str], *, complete: bool) -> None:
        """Leave out of what is held which comings and goings a list of the group's users (by id) tells; one
        that is not ``complete`` says nothing of those who are not on it."""
        held = self._held or []
        # However often somebody came and went meanwhile: what counts is the last.
        last = {each.whose[0]: each for each in held if each.whose is not None and each.group == group}
        kept = []
        for each in held:
            if each.whose is not None and each.group == group:
                user, came = each.whose
                told = user in present if came else complete and user not in present
                if told or last[user] is not each:
                    self._bytes -= len(each.frame)
                    continue
            kept.append(each)
        if self._held is not None:
            self._held = kept

    def take(self) -> list[bytes]:
        """Everything to be written now, joined into as few frames as the protocol allows."""
        return joined(self._take(), self.protocol.separator)

    def take_framed(self) -> list[bytes]:
        """The same as WebSocket frames, in one piece unless that is long."""
        said = self._take()
        return framed(said, type(self.protocol)) if said else said

    def _take(self) -> list[bytes]:
        if self.hears is not None:
            self._leave()
        said, self._frames = self._frames, []
        self._bytes -= sum(map(len, said))
        self._be_free()
        return said

    def fail(self, error: Exception) -> None:
        """It cannot be written to, which is not to keep the others from being told."""
        logger.warning("Could not write to %r: %r", self, error)
        try:
            self.close(CloseCode.INTERNAL_ERROR, "Something could not be sent.", discard=True)
        except Exception:
            logger.exception("Could not close %r", self)

    def close(
        self, code: CloseCode, message: str, *, retry_in: float | None = None, discard: bool = False
    ) -> None:
        """Say a last word and end the connection; what is queued goes first unless ``discard``."""
        if self.close_code is not None:
            return
        self.be_alone()
        if discard:
            self._frames, self._held, self._bytes = [], None, 0
        elif self._held is not None:
            # What its groups are told waits for an answer that will not come; who resumes is told it again.
            self._bytes -= sum(len(each.frame) for each in self._held if each.group is not None)
            self._held = [each for each in self._held if each.group is None]
            self.release()
        if self._is_closing():
            # What was held was too much, and said so itself.
            return
        frame = self.protocol.encode(
            Closing(code=code, message=message, retry_in=UNSET if retry_in is None else retry_in)
        )
        if frame is not None:
            self._frames.append(frame)
            self._bytes += len(frame)
        self.close_code, self.close_reason, self.hears = code, message, None
        self._wake()

    def _leave(self) -> None:
        """What it has heard together with others is its own from here on."""
        heard, self.hears = self.hears, None
        if isinstance(heard, SharedFrames):
            for batch in heard.chain():
                self._frames += batch.frames
                self._bytes += batch.size
            batch.round.leave(self)

    def _be_free(self) -> None:
        """It may hear what others hear, if nothing that is its own comes before that."""
        alone = self._frames or self._held is not None or self._writing_since is not None
        if self.hears is None and not alone and self.close_code is None:
            self.hears = type(self.protocol)

    def _is_closing(self) -> bool:
        return self.close_code is not None

    def _put(self, frame: bytes) -> None:
        if self.close_code is not None:
            return
        if self.hears is not None:
            self.be_alone()
        self._frames.append(frame)
        self._bytes += len(frame)
        if len(self._frames) == 1:
            self._wake()
        elif self._writing_since is not None:
            self._check_bounds(len(self._frames))

    def _check_bounds(self, frames: int) -> None:
        # What piles up within one turn of the loop leaves with the next write, however much it is;
        # only what waits behind a write that does not end says that the client is slow. And a few frames
        # are no sign of that, however large somebody else made them.
        if frames <= min(FEW_FRAMES, self._limits.frames):
            return
        if self._bytes > self._limits.bytes or frames > self._limits.frames:
            self._too_slow()

    def _too_slow(self) -> None:
        self.close(CloseCode.SLOW_CONSUMER, "Too much was waiting to be read.", discard=True)
