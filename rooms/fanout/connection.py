"""One client: who it is, where it is, and the bounded outbox of what it has yet to be told.

The consumer hands in ``wake`` and takes frames out; everybody else only puts frames in. Nothing
here waits: a client that does not read fills its own outbox and is closed, nobody else notices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import UNSET

from rooms.errors import CloseCode
from rooms.events import Closing, Push, Request, User
from rooms.limits import TokenBucket
from rooms.protocols import Protocol

# Frames that may leave as one are joined up to this size; many clients refuse frames above 1 MiB.
LONGEST_JOINED_FRAME = 64 * 1024
# So many may wait, whatever their size.
FEW_FRAMES = 4
# Behind an answer that takes its time so many outboxes may wait.
MOST_HELD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxLimits:
    """How much may wait for a client before it counts as too slow."""

    bytes: int = 1024 * 1024
    frames: int = 512


@dataclass(slots=True, kw_only=True)
class Membership:
    """A connection's place in a room; ``listens_only`` is that of a subscriber.

    While a join is under way: ``announced`` is one of whose coming the room's extensions were told,
    ``unheard`` one who came as the first of a user and of whom the others have not been told yet,
    ``inside`` a member who hears the room."""

    room: str
    group: str
    listens_only: bool
    announced: bool = False
    inside: bool = False
    unheard: bool = False


class _Held(NamedTuple):
    """A push that waits for an answer to go before it."""

    frame: bytes
    group: str | None
    seq: int | None
    whose: tuple[str, bool] | None


class Connection:
    """Lives from the accepted handshake to the end of the socket. Not thread-safe: its event loop's own."""

    __slots__ = (
        "_bytes",
        "_frames",
        "_held",
        "_limits",
        "_wake",
        "account",
        "address",
        "application",
        "buckets",
        "busy",
        "claims",
        "close_code",
        "close_reason",
        "dialled",
        "heard",
        "id",
        "login",
        "memberships",
        "moderator",
        "number",
        "pinged",
        "protocol",
        "requests",
        "user",
        "waiting_for_login",
        "writing_since",
    )

    def __init__(
        self,
        id: str,
        protocol: Protocol,
        *,
        application: str = "",
        address: str = "",
        limits: OutboxLimits = OutboxLimits(),
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = id
        self.protocol = protocol
        self.application = application
        self.address = address
        # Counts the connections of an application in this process, from 1; 0 before it is let in.
        self.number = 0
        # What the handshake said about its client, for extensions; see ``engine/handshakes.py``.
        self.claims: dict[str, str] = {}
        # It leads to a service that an extension dialled, and did not come in by itself.
        self.dialled = False
        self.user: User | None = None
        # The signed-in user behind one whom the protocol makes anonymous.
        self.account: User | None = None
        self.moderator = False
        # The login whose tokens end with a logout; see ``engine/logins.py``.
        self.login: str | None = None
        self.memberships: dict[str, Membership] = {}
        self.requests = 0
        self.buckets: dict[str, TokenBucket] = {}
        # Monotonic times that the heartbeat reads: last sign of life, since when something is so.
        self.heard = 0.0
        self.pinged = False
        self.waiting_for_login: float | None = None
        self.writing_since: float | None = None
        # A request is being carried out, so the client need not give other signs of life.
        self.busy = False
        self.close_code: CloseCode | None = None
        self.close_reason = ""
        self._limits = limits
        self._wake = wake
        self._frames: list[bytes] = []
        self._bytes = 0
        self._held: list[_Held] | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.user.name if self.user else 'not logged in'!r}>"

    @property
    def socket(self) -> str:
        """What tells its socket from others, however often its client logs in."""
        return self.id

    @property
    def people(self) -> tuple[User, ...]:
        """Everybody whom this client is known as: what is forbidden to one of them is forbidden to it."""
        return tuple(user for user in (self.user, self.account) if user is not None)

    @property
    def waiting(self) -> int:
        """Bytes that wait to be written."""
        return self._bytes

    def send(self, event: Push | Request) -> None:
        """Tell this client alone. Not held back: answers go before what they caused."""
        for frame in self.protocol.frames(event):
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
            self._held.append(_Held(frame, group, seq, whose))
            self._bytes += len(frame)
            if self._bytes > MOST_HELD * self._limits.bytes:
                self._too_slow()
        else:
            self._put(frame)

    def notify(self, event: Push) -> None:
        """Tell this client alone of something that is no answer: held back like any push."""
        frame = self.protocol.send(event)
        if frame is not None:
            self.push(frame)

    def is_slow(self) -> bool:
        """More than half of the outbox is taken: what may be dropped is dropped."""
        return self._bytes * 2 > self._limits.bytes or len(self._frames) * 2 > self._limits.frames

    def is_busy(self) -> bool:
        """A request is being carried out."""
        return self.busy

    def hold(self) -> None:
        """Queue pushes aside until ``release``, so that an answer can go before them."""
        if self._held is None:
            self._held = []

    def release(self, group: str | None = None, until: int = 0) -> None:
        """Let held pushes follow, but for those of ``group`` up to the number ``until``, which the
        answer has already told."""
        held, self._held = self._held or [], None
        self._bytes -= sum(len(each.frame) for each in held)
        for each in held:
            if each.group is None or each.group != group or each.seq is None or each.seq > until:
                self._put(each.frame)

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
        frames, self._frames = self._frames, []
        self._bytes -= sum(map(len, frames))
        separator = self.protocol.separator
        if separator is None or len(frames) < 2:
            return frames
        joined: list[bytes] = []
        batch: list[bytes] = []
        size = 0
        for frame in frames:
            if batch and size + len(frame) > LONGEST_JOINED_FRAME:
                joined.append(separator.join(batch))
                batch, size = [], 0
            batch.append(frame)
            size += len(frame) + 1
        joined.append(separator.join(batch))
        return joined

    def close(
        self, code: CloseCode, message: str, *, retry_in: float | None = None, discard: bool = False
    ) -> None:
        """Say a last word and end the connection; what is queued goes first unless ``discard``."""
        if self.close_code is not None:
            return
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
        frame = self.protocol.send(
            Closing(code=code, message=message, retry_in=UNSET if retry_in is None else retry_in)
        )
        if frame is not None:
            self._frames.append(frame)
            self._bytes += len(frame)
        self.close_code, self.close_reason = code, message
        self._wake()

    def _is_closing(self) -> bool:
        return self.close_code is not None

    def _put(self, frame: bytes) -> None:
        if self.close_code is not None:
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._check_bounds(len(self._frames))
        if len(self._frames) == 1:
            self._wake()

    def _check_bounds(self, frames: int) -> None:
        # What piles up within one turn of the loop leaves with the next write, however much it is;
        # only what waits behind a write that does not end says that the client is slow. And a few frames
        # are no sign of that, however large somebody else made them.
        if self.writing_since is None or frames <= min(FEW_FRAMES, self._limits.frames):
            return
        if self._bytes > self._limits.bytes or frames > self._limits.frames:
            self._too_slow()

    def _too_slow(self) -> None:
        self.close(CloseCode.SLOW_CONSUMER, "Too much was waiting to be read.", discard=True)
