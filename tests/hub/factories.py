"""Connections, groups and rooms for the tests of the hub, and an event loop that is turned by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, cast

from msgspec import Raw

from rooms.hub.application import Application
from rooms.hub.connection import Connection
from rooms.hub.group import Group, Hub
from rooms.hub.room import Room
from rooms.hub.send_queue import SendQueueLimits
from rooms.hub.write_scheduler import DirectWriter, WriteScheduler
from rooms.protocol.base import Protocol
from rooms.protocol.events import Joined, Left, Message
from rooms.protocol.frame_protocol import TEXT, frame
from rooms.protocol.types import Position, User
from tests.hub.codecs import Plain
from tests.records import application_record, room_record

_ids = itertools.count(1)


# Events ------------------------------------------------------------------------------------------


def message(event: str, seq: int | None = None) -> Message:
    return Message(room="lobby", event=event, data=Raw(b"null"), sender=None, seq=seq, time="t")


def guest(name: str) -> User:
    """A user whose name is the id too."""
    return User(name=name, id=name, guest=True)


def user_joined(name: str) -> Joined:
    return Joined(room="lobby", user=guest(name))


def user_left(name: str) -> Left:
    return Left(room="lobby", user=guest(name), reason="left")


def at(seq: int, epoch: str = "e") -> Position:
    return Position(epoch=epoch, seq=seq)


# Connections -------------------------------------------------------------------------------------


def connection(protocol: Protocol | None = None, user: str | None = None) -> Connection:
    """Return a connection; ``user`` is id and name of its user."""
    made = Connection(f"c{next(_ids)}", protocol or Plain())
    made.user = guest(user) if user else None
    return made


def received(connection: Connection) -> list[str]:
    """The frames that were queued for a connection since the last call."""
    return [each.decode() for each in connection.pop_all()]


# Groups and rooms --------------------------------------------------------------------------------


class Listener:
    """Records what a room reports."""

    def __init__(self) -> None:
        self.gaps: list[Room] = []
        self.presence_changes: list[Room] = []

    def on_gap(self, room: Room) -> None:
        self.gaps.append(room)

    def on_presence_change(self, room: Room) -> None:
        self.presence_changes.append(room)


def make_hub() -> Hub:
    """A hub that never writes: frames stay in the send queues."""
    return Hub(WriteScheduler(lambda call: None))


def make_application(hub: Hub | None = None, **config: Any) -> Application:
    runner = cast(Any, object())
    return Application(
        hub or make_hub(), application_record(**config), runner=runner, handshakes=cast(Any, None)
    )


def make_room(
    hub: Hub | None = None,
    *members: Connection,
    id: int = 1,
    listener: Listener | None = None,
    diff_threshold: int = 200,
) -> Room:
    hub = hub or make_hub()
    room = Room(
        hub,
        make_application(hub),
        room_record(id=id),
        listener=listener or Listener(),
        runner=cast(Any, object()),
        context=None,
        diff_threshold=diff_threshold,
    )
    for member in members:
        room.add(member)
    return room


def add_members(group: Group, count: int, protocol: type[Plain] = Plain) -> list[Connection]:
    """Add new connections to a group."""
    members = [connection(protocol()) for _ in range(count)]
    for member in members:
        group.add(member)
    return members


# Writing -----------------------------------------------------------------------------------------


class Loop:
    """An event loop that is turned by hand."""

    def __init__(self) -> None:
        self.scheduled: list[Callable[[], None]] = []

    def turn(self) -> int:
        """Call what is scheduled. Returns the number of calls."""
        due = list(self.scheduled)
        self.scheduled.clear()
        for call in due:
            call()
        return len(due)

    def run(self) -> int:
        """Turn until nothing is scheduled. Returns the number of turns."""
        count = 0
        while self.turn():
            count += 1
        return count


class Socket:
    """Records what is written; ``reads`` tells whether the client reads it."""

    def __init__(self) -> None:
        self.reads = True
        self.written: list[bytes] = []
        self.closed: list[int] = []
        self.drained: Callable[[], None] = lambda: None
        self.error: Exception | None = None

    def write(self, data: bytes) -> bool:
        if self.error is not None:
            raise self.error
        self.written.append(data)
        return self.reads

    def on_drained(self, call: Callable[[], None]) -> None:
        self.drained = call

    def close(self, code: int, reason: str) -> None:
        self.closed.append(code)


class WiredRoom:
    """A room whose clients are written to by the scheduler, in an event loop that is turned by hand."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.scheduler = WriteScheduler(self.loop.scheduled.append)
        self.hub = Hub(self.scheduler)
        self.room = make_room(self.hub)

    def client(self, **limits: int) -> tuple[Connection, Socket]:
        """Add a member that is written to directly."""
        made, socket = Connection("c", Plain(), limits=SendQueueLimits(**limits)), Socket()
        DirectWriter(made, socket, self.scheduler)
        self.room.add(made)
        return made, socket

    def broadcast(self, *events: str) -> None:
        for event in events:
            self.room.broadcast(message(event))


def text_frames(*texts: str) -> bytes:
    """WebSocket text frames, in one piece."""
    return b"".join(frame(TEXT, each.encode()) for each in texts)
