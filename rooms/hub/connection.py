"""One client: its identity and its memberships.

Its send queue is in ``send_queue.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rooms.concurrency.rate_limits import Limit, TokenBucket
from rooms.hub.send_queue import DEFAULT_LIMITS, SendQueue, SendQueueLimits
from rooms.protocol.base import Protocol
from rooms.protocol.types import User

RoomT = TypeVar("RoomT")


@dataclass(slots=True, kw_only=True)
class Membership(Generic[RoomT]):
    """A connection's membership in a room.

    The class is generic, since ``room.py`` imports this module.

    A ``subscriber`` only receives events and is not listed. While a join is under way:
    ``announced`` when the room's extensions have accepted the user, ``active`` when the member
    receives events.
    """

    room: RoomT
    subscriber: bool
    announced: bool = False
    active: bool = False


class Connection(SendQueue):
    """A client, from the accepted handshake to the end of the socket.

    A connection belongs to one event loop.
    """

    __slots__ = (
        "_idle",
        "account",
        "address",
        "application",
        "buckets",
        "busy",
        "claims",
        "entered",
        "id",
        "in_flight",
        "in_flight_room",
        "last_seen",
        "login",
        "memberships",
        "moderator",
        "number",
        "outbound",
        "ping_sent",
        "requests",
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
        # The application that it has entered (``application.py``); None before.
        self.entered: Any = None
        # Its number among the application's connections in this process, from 1; 0 before it is accepted.
        self.number = 0
        # What the handshake established about the client, for extensions; see ``node/connect.py``.
        self.claims: dict[str, str] = {}
        self.outbound = False  # an extension opened it
        self.user: User | None = None
        # The signed-in user of a client that its protocol makes a guest.
        self.account: User | None = None
        self.moderator = False
        # The login whose tokens end with a logout; see ``node/auth.py``.
        self.login: str | None = None
        self.memberships: dict[str, Membership[Any]] = {}  # by the name of the room
        self.requests = 0
        self.buckets: dict[Limit, TokenBucket] = {}
        # Monotonic seconds that the periodic check reads, as ``writing_since`` is.
        self.last_seen = 0.0
        self.ping_sent = False
        self.waiting_for_login: float | None = None
        # A command is executed, so the client need not give other signs of life.
        self.busy = False
        # Messages that history has not stored yet, and the room of all of them.
        self.in_flight = 0
        self.in_flight_room: object = None
        self._idle: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.user.name if self.user else 'not logged in'!r}>"

    @property
    def socket(self) -> str:
        """The id of its socket, which stays the same however often the client logs in."""
        return self.id

    def is_busy(self) -> bool:
        """Whether a command is executed or a message is in flight."""
        return self.busy or self.in_flight > 0

    async def wait_idle(self) -> None:
        """Wait until all messages in flight are acknowledged and broadcast."""
        while self.in_flight:
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._idle})

    def mark_acknowledged(self) -> None:
        """Count a message in flight as acknowledged and broadcast."""
        self.in_flight -= 1
        if not self.in_flight:
            self.in_flight_room = None
            if self._idle is not None:
                self._idle.set_result(None)
                self._idle = None

    @property
    def identities(self) -> tuple[User, ...]:
        """All users that this client counts as.

        A ban or mute of one of them applies to the client.
        """
        if self.account is None:
            return () if self.user is None else (self.user,)
        return (self.account,) if self.user is None else (self.user, self.account)
