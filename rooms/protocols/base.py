"""The seam between the engine and a wire format.

A protocol is a pure codec: it reads frames into the requests of ``events.py`` and writes events
into frames. It does no IO, knows no Django and keeps at most what it must remember of one
connection. To speak another format, write one of these; nothing else changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from msgspec import UNSET

from rooms.errors import RoomsError
from rooms.events import Error, Push, Request, RequestId


class Protocol(ABC):
    """One per connection."""

    # Frames leave as binary rather than as text.
    binary: ClassVar[bool] = False
    # What may stand between frames that leave together as one; None: each leaves by itself.
    separator: ClassVar[bytes | None] = None
    # The WebSocket subprotocol that is echoed when the client offers it.
    subprotocol: ClassVar[str | None] = None

    @abstractmethod
    def receive(self, frame: str | bytes) -> Iterable[Request | Error]:
        """What a frame asks, in order. A request that cannot be read is yielded as the Error that
        answers it. Raises ProtocolError, after the good part of the frame, where the connection
        has to end."""

    @abstractmethod
    def send(self, event: Push | Request) -> bytes | None:
        """The frame that tells this client of ``event``, or None: it is silent about that."""

    @classmethod
    @abstractmethod
    def broadcast(cls, event: Push) -> bytes | None:
        """The frame that tells every client of a room. Stateless, so that it is encoded once."""


def error_answer(id: RequestId | None, error: RoomsError) -> Error:
    """The answer to a request that failed."""
    return Error(id=UNSET if id is None else id, code=error.code, message=error.message, retry=error.retry)
