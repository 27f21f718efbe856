"""Messages for the histories' tests, and rooms to say them in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from msgspec import UNSET, Raw

from rooms import catalogue, clock
from rooms.catalogue import RoomRecord
from rooms.events import Message, User
from rooms.models import Application, Room

RoomMaker: TypeAlias = Callable[..., Awaitable[RoomRecord]]

ANN = User(name="ann", id="guest-1", guest=True)


def made_room(name: str = "lobby", **fields: Any) -> RoomRecord:
    """A room with a row of its own, in the application ``chat``."""
    row, _ = Application.objects.get_or_create(name="chat")
    Room.objects.create(application=row, name=name, **fields)
    application = catalogue.load_application("chat")
    assert application is not None
    found = catalogue.load_room(application, name)
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
    """A message that has no number yet."""
    return Message(
        room=room,
        event=event,
        data=Raw(data),
        sender=sender,
        seq=None,
        time=time or clock.now(),
        state=True if state else UNSET,
    )
