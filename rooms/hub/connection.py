"""One client: who it is and where it is. What it has yet to be told: ``outbox.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from rooms.concurrency.rate_limits import Limit, TokenBucket
from rooms.hub.send_queue import DEFAULT_LIMITS, SendQueue, SendQueueLimits
from rooms.protocol.base import Protocol
from rooms.protocol.types import User


@dataclass(slots=True, kw_only=True)
class Membership:
    """A connection's place in a room; ``listens_only`` is that of a subscriber.

    While a join is under way: ``announced`` is one of whose coming the room's extensions were told,
    ``inside`` a member who hears the room."""

    room: str
    group: str
    listens_only: bool
    announced: bool = False
    inside: bool = False


class Connection(SendQueue):
    """Lives from the accepted handshake to the end of the socket. Not thread-safe: its event loop's own."""

    __slots__ = (
        "_answered",
        "account",
        "address",
        "application",
        "buckets",
        "busy",
        "claims",
        "dialled",
        "heard",
        "id",
        "login",
        "memberships",
        "moderator",
        "number",
        "pinged",
        "requests",
        "speaks_in",
        "unanswered",
        "user",
        "waiting_for_login",
    )

    def __init__(
        self,
        id: str,
        protocol: Protocol,
        *,
        application: str = "",
        address: str = "",
        limits: SendQueueLimits = DEFAULT_LIMITS,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(protocol, limits, wake)
        self.id = id
        self.application = application
        self.address = address
        # Counts the connections of an application in this process, from 1; 0 before it is let in.
        self.number = 0
        # What the handshake said about its client, for extensions; see ``node/connect.py``.
        self.claims: dict[str, str] = {}
        # It leads to a service that an extension dialled, and did not come in by itself.
        self.dialled = False
        self.user: User | None = None
        # The signed-in user behind one whom the protocol makes anonymous.
        self.account: User | None = None
        self.moderator = False
        # The login whose tokens end with a logout; see ``node/auth.py``.
        self.login: str | None = None
        self.memberships: dict[str, Membership] = {}
        self.requests = 0
        self.buckets: dict[Limit, TokenBucket] = {}
        # Monotonic times that the heartbeat reads, as ``writing_since`` is: last sign of life, since when
        # something is so.
        self.heard = 0.0
        self.pinged = False
        self.waiting_for_login: float | None = None
        # A request is being carried out, so the client need not give other signs of life.
        self.busy = False
        # Messages that a history has yet to keep, and the group in which they are all said.
        self.unanswered = 0
        self.speaks_in = ""
        self._answered: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.user.name if self.user else 'not logged in'!r}>"

    @property
    def socket(self) -> str:
        """What tells its socket from others, however often its client logs in."""
        return self.id

    def is_busy(self) -> bool:
        """A request is being carried out."""
        return self.busy or self.unanswered > 0

    async def answered(self) -> None:
        """Wait until all messages are answered and told."""
        while self.unanswered:
            if self._answered is None:
                self._answered = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._answered})

    def has_answered(self) -> None:
        """One message has been answered and told."""
        self.unanswered -= 1
        if self._answered is not None and not self.unanswered:
            self._answered.set_result(None)
            self._answered = None

    @property
    def people(self) -> tuple[User, ...]:
        """Everybody whom this client is known as: what is forbidden to one of them is forbidden to it."""
        if self.account is None:
            return () if self.user is None else (self.user,)
        return (self.account,) if self.user is None else (self.user, self.account)
