"""Where the users of this process are: the connections as which each is logged in to an application."""

from __future__ import annotations

from collections import defaultdict

from rooms.hub.connection import Connection
from rooms.protocol.events import Event


class UserConnections:
    """An application is said by its group, a user by the id."""

    def __init__(self) -> None:
        # Most users have one connection: a tuple of one is much smaller than a group of the hub.
        self._connections: defaultdict[str, dict[str, tuple[Connection, ...]]] = defaultdict(dict)

    def add(self, application: str, user: str, connection: Connection) -> None:
        connections = self._connections[application]
        connections[user] = (*connections.get(user, ()), connection)

    def discard(self, application: str, user: str, connection: Connection) -> None:
        connections = self._connections[application]
        others = tuple(each for each in connections.pop(user, ()) if each is not connection)
        if others:
            connections[user] = others
        elif not connections:
            del self._connections[application]

    def tell(self, application: str, user: str, event: Event) -> None:
        """Tell all connections of a user."""
        for connection in self._connections.get(application, {}).get(user, ()):
            frame = connection.protocol.encode_broadcast(event, connection.application)
            if frame is not None:
                connection.push(frame)
