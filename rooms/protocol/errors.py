"""What can go wrong, in words that a client may read.

An error class *is* its wire answer: ``code`` and ``retry`` stand on the class, the instance brings
the sentence. Anything that is not a ``RoomsError`` is a fault of ours and reaches a client only as
``internal_error``. Close codes live here too, because closing is the last way to say no.

The codes are those of the native protocol, sections 7 and 8. Next in the flow: ``events.py``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class CloseCode(IntEnum):
    """Why the server ends a connection. 4000-4499: come back. 4500-4999: do not."""

    NORMAL = 1000
    SERVER_RESTART = 4000
    SLOW_CONSUMER = 4001
    HEARTBEAT_TIMEOUT = 4002
    RESYNC = 4003
    INTERNAL_ERROR = 4004
    SESSION_EXPIRED = 4005
    RATE_LIMITED = 4006
    OVERLOADED = 4007
    PERMISSIONS_CHANGED = 4008
    BAD_FRAME = 4500
    NOT_PERMITTED = 4501
    LOGIN_TIMEOUT = 4502
    KICKED = 4503
    BANNED = 4504
    TOO_MANY_CONNECTIONS = 4505
    REPLACED = 4506
    FRAME_TOO_LARGE = 4507
    FLOODING = 4508
    NO_SUCH_APPLICATION = 4509
    LOGGED_OUT = 4510


# From this code on, whoever comes again meets the same.
FOR_GOOD = CloseCode.BAD_FRAME


class RoomsError(Exception):
    """A request that is answered with no: ``code`` for programs, ``message`` for people.

    ``retry`` is true when the same request may succeed later.
    """

    code: ClassVar[str] = "internal_error"
    retry: bool = False

    def __init__(self, message: str, *, retry: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        if retry is not None:
            self.retry = retry


class ProtocolError(RoomsError):
    """The peer broke the protocol so badly that the connection ends with ``close_code``."""

    code = "bad_request"

    def __init__(self, message: str, close_code: CloseCode = CloseCode.BAD_FRAME) -> None:
        super().__init__(message)
        self.close_code = close_code


class BadRequest(RoomsError):
    code = "bad_request"


class UnknownType(RoomsError):
    code = "unknown_type"


class ReservedEvent(RoomsError):
    code = "reserved_event"


class NotLoggedIn(RoomsError):
    code = "not_logged_in"


class LoginRefused(RoomsError):
    code = "login_refused"


class NameTaken(RoomsError):
    code = "name_taken"
    retry = True


class BadToken(RoomsError):
    code = "bad_token"


class PermissionDenied(RoomsError):
    code = "permission_denied"


class ApplicationFull(RoomsError):
    code = "application_full"
    retry = True


class RoomNotFound(RoomsError):
    code = "room_not_found"


class RoomExists(RoomsError):
    code = "room_exists"


class RoomFull(RoomsError):
    code = "room_full"


class RoomClosed(RoomsError):
    code = "room_closed"


class BadPassword(RoomsError):
    code = "bad_password"


class Banned(RoomsError):
    code = "banned"


class Muted(RoomsError):
    code = "muted"


class NotMember(RoomsError):
    code = "not_member"


class AlreadyMember(RoomsError):
    """Only told by protocols for which coming in twice is a fault."""

    code = "already_member"


class NotSender(RoomsError):
    code = "not_sender"


class UserNotFound(RoomsError):
    code = "user_not_found"


class MessageTooLarge(RoomsError):
    code = "message_too_large"


class TooManyRooms(RoomsError):
    code = "too_many_rooms"


class RateLimited(RoomsError):
    code = "rate_limited"
    retry = True


class Rejected(RoomsError):
    """Raised by an extension's handler to refuse; its text reaches the client as it is."""

    code = "rejected"


class HandshakeRejected(Rejected):
    """Raised by an extension's ``on_handshake``: the handshake is answered with this HTTP ``status``, 400 to
    499, where the server can, and else with 403. Raises ValueError for another status."""

    def __init__(self, message: str = "You may not come in.", *, status: int = 403) -> None:
        super().__init__(message)
        if not 400 <= status <= 499:
            raise ValueError(f"A handshake is refused with a status from 400 to 499, got {status}.")
        self.status = status


class UnknownConnection(LookupError):
    """An extension named a connection that is not open (any more)."""


class Unavailable(RoomsError):
    """A backend is down or busy; nothing was done, or a resend with the same ``key`` finds out."""

    code = "unavailable"
    retry = True


class InternalError(RoomsError):
    code = "internal_error"
