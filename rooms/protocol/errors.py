"""Errors that clients receive, and the codes that connections are closed with.

An error class *is* its wire answer: ``code`` and ``retry`` are on the class, the message is on the
instance. Any other exception is a fault of the server, which clients only receive as ``internal_error``.
The codes are those of the native protocol, sections 7 and 8.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class CloseCode(IntEnum):
    """The reason for a close; the client may reconnect after 4000-4499."""

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


# From this code on a new connection would be closed for the same reason.
FIRST_PERMANENT_CODE = CloseCode.BAD_FRAME


class RoomsError(Exception):
    """The error of a command: ``code`` for programs, ``message`` for people.

    ``retry`` is true if the same command may succeed later.
    """

    code: ClassVar[str] = "internal_error"
    retry: bool = False

    def __init__(self, message: str, *, retry: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        if retry is not None:
            self.retry = retry


class ProtocolError(RoomsError):
    """A violation of the protocol that closes the connection with ``close_code``."""

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
    """Only for protocols in which a second join is an error."""

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
    """Raised by an extension's handler to refuse; clients receive its message."""

    code = "rejected"


class HandshakeRejected(Rejected):
    """Raised by an extension's ``on_handshake`` to refuse a handshake.

    The server answers with the HTTP ``status``, 400 to 499, if it can, and with 403 otherwise. Raises
    ValueError for another status.
    """

    def __init__(self, message: str = "The handshake was rejected.", *, status: int = 403) -> None:
        super().__init__(message)
        if not 400 <= status <= 499:
            raise ValueError(f"Expected an HTTP status from 400 to 499, got {status}.")
        self.status = status


class UnknownConnection(LookupError):
    """Raised for a connection that is not open, or no longer."""


class Unavailable(RoomsError):
    """A backend is down or busy; a resend with the same ``key`` is safe."""

    code = "unavailable"
    retry = True


class InternalError(RoomsError):
    code = "internal_error"
