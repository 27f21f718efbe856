"""Messages and rooms for the tests of histories."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from msgspec import UNSET, Raw

from rooms.histories import Appended, FutureCompletion, History
from rooms.hub.config import RoomConfig
from rooms.models import Application, Room
from rooms.node import config
from rooms.protocol import timestamps
from rooms.protocol.events import Message
from rooms.protocol.types import User

RoomMaker: TypeAlias = Callable[..., Awaitable[RoomConfig]]

ANN = User(name="ann", id="guest-1", guest=True)


def create_room(name: str = "lobby", **fields: Any) -> RoomConfig:
    """Create a room with a row in the application ``chat``."""
    row, _ = Application.objects.get_or_create(name="chat")
    Room.objects.create(application=row, name=name, **fields)
    application = config.load_application("chat")
    assert application is not None
    found = config.load_room(application, name)
    assert found is not None
    return found


def message(
    data: bytes | Raw = b'"hi"',
    *,
    room: str = "lobby",
    event: str = "message",
    sender: User | None = ANN,
    state: bool = False,
    time: str | None = None,
) -> Message:
    """Build a message without a number."""
    return Message(
        room=room,
        event=event,
        data=Raw(data),
        sender=sender,
        seq=None,
        time=time or timestamps.now(),
        state=True if state else UNSET,
    )


async def append_and_wait(
    history: History, room: RoomConfig, message: Message, key: str | None = None
) -> Appended:
    """Append a message and wait for the result."""
    completion = FutureCompletion()
    history.append(room, message, key, completion)
    result: Appended = await completion
    return result
