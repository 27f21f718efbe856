"""An application in this process: its config, its connections and its users."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from rooms.hub.config import ApplicationConfig
from rooms.hub.connection import Connection
from rooms.hub.group import Group, Hub
from rooms.protocol.events import Event

if TYPE_CHECKING:
    # Its threads need Django, which the hub does not import.
    from rooms.concurrency.serial_executor import AdmissionQueue, SerialExecutor


class Runner(Protocol):
    """Runs the extension of an application or room: ``extensions/runner.py``."""

    executor: SerialExecutor
    active: bool

    @property
    def not_started(self) -> bool: ...

    def ensure_ready(self) -> None: ...

    def handles(self, hook: str) -> bool: ...

    def find_handler(self, event: str) -> Callable[..., Any] | None: ...

    async def call(
        self, hook: str, event: object, *, executor: SerialExecutor | None = None, wait: float | None = None
    ) -> None: ...

    async def run(
        self,
        handler: Callable[..., Any],
        *event: object,
        executor: SerialExecutor | None = None,
        wait: float | None = None,
    ) -> None: ...

    async def notify(self, hook: str, event: object, *, executor: SerialExecutor | None = None) -> None: ...

    async def configure(self, name: str, settings: dict[str, Any], application: str, room: Any) -> None: ...

    def stop(self) -> None: ...


class Application:
    """Belongs to one event loop. ``runner`` runs the application's extension."""

    def __init__(
        self, hub: Hub, config: ApplicationConfig, *, runner: Runner, handshakes: AdmissionQueue
    ) -> None:
        self.config = config
        self.runner = runner
        # Orders the handshakes that wait for the extension.
        self.handshakes = handshakes
        #: All connections, and those that receive the changes of the room list.
        self.members = Group(hub, f"application.{config.id}")
        self.room_list = Group(hub, f"watchers.{config.id}")
        # A change is applied to `config`, but not yet to the members.
        self.stale = False
        # The open connections of this process by number, from 1.
        self.connections: dict[int, Connection] = {}
        self._numbers = itertools.count(1)
        # Most users have one connection: a tuple of one is much smaller than a set.
        self._by_user: dict[str, tuple[Connection, ...]] = {}

    @property
    def key(self) -> str:
        """Its name on the channel layer and in presence."""
        return self.members.key

    def add(self, connection: Connection) -> None:
        """Add an accepted connection, and number it."""
        connection.number = next(self._numbers)
        connection.entered = self
        self.connections[connection.number] = connection
        self.members.add(connection)

    def discard(self, connection: Connection) -> bool:
        """Remove a connection. Returns whether it was the last one in this process."""
        self.connections.pop(connection.number, None)
        self.room_list.discard(connection)
        return self.members.discard(connection)

    def add_user(self, user: str, connection: Connection) -> None:
        """Note that a connection is logged in as the user with this id."""
        self._by_user[user] = (*self._by_user.get(user, ()), connection)

    def discard_user(self, user: str, connection: Connection) -> None:
        """Note that a connection is not logged in as this user any more."""
        others = tuple(each for each in self._by_user.pop(user, ()) if each is not connection)
        if others:
            self._by_user[user] = others

    def send_to_user(self, user: str, event: Event) -> None:
        """Send an event to all connections of a user in this process, by the user's id."""
        for connection in self._by_user.get(user, ()):
            frame = connection.protocol.encode_broadcast(event, connection.application)
            if frame is not None:
                connection.push(frame)
