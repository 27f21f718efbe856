"""One socket for several applications, as clients of goroomserver use it.

The connection of the socket is in no application. For each application that its client logs in to, the
session creates a ``SubConnection``: to the node a connection like any other, with a user, memberships and
limits of its own, which writes to the socket's connection. A logout removes it; the end of the socket
removes all of them.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from typing import Any

from rooms.concurrency.rate_limits import Limit, TokenBucket
from rooms.hub.connection import Connection
from rooms.node.connect import Handshake, authenticate_handshake
from rooms.node.node import Node
from rooms.node.session import Session
from rooms.protocol.commands import Command, Login
from rooms.protocol.compat_commands import ApplicationCommand
from rooms.protocol.errors import CloseCode, LoginRefused, NameTaken, NotLoggedIn, RoomsError
from rooms.protocol.events import Error, Reply

# Applications that one socket can be logged in to: each takes memory and a membership of a group.
MAX_APPLICATIONS = 32


class NoSuchApplication(RoomsError):
    """Native clients never receive it: their address names the application."""

    code = "no_such_application"


class SubConnection(Connection):
    """A client's connection to one application, on a socket shared with others.

    It writes to its ``parent``, the connection of the socket. Closing it closes the parent, but not before
    it is ``established``: until then it can be refused by itself.
    """

    __slots__ = ("_parent", "established")

    def __init__(self, id: str, parent: Connection, *, application: str) -> None:
        super().__init__(
            id,
            parent.protocol.for_application(application),
            application=application,
            address=parent.address,
            limits=parent._limits,
        )
        self.claims = parent.claims
        self.shared = None
        self.established = False
        self._parent = parent

    @property
    def socket(self) -> str:
        return self._parent.id

    def is_slow(self) -> bool:
        return self._parent.is_slow()

    def is_busy(self) -> bool:
        return self._parent.is_busy()

    def _is_closing(self) -> bool:
        return super()._is_closing() or self._parent._is_closing()

    def close(
        self, code: CloseCode, message: str, *, retry_in: float | None = None, discard: bool = False
    ) -> None:
        if not self.established:
            super().close(code, message, retry_in=retry_in, discard=discard)
            return
        if discard:
            self._corked, self._bytes = None, 0
        else:
            self.uncork()
        self._parent.close(code, message, retry_in=retry_in, discard=discard)

    def _put(self, frame: bytes) -> None:
        self._parent._put(frame)

    def _rejoin(self) -> None:
        """Do nothing: its frames go through the parent's queue, never shared."""


class MultiplexSession(Session):
    """The session of a socket with sub-connections."""

    def __init__(self, node: Node, *arguments: Any, handshake: Handshake | None = None) -> None:
        super().__init__(node, *arguments, handshake=handshake)
        self._handshake = handshake
        self._sub_connections: dict[str, SubConnection] = {}
        # Kept per application, so that a new login does not refill the client's rate limits.
        self._buckets: defaultdict[str, dict[Limit, TokenBucket]] = defaultdict(dict)
        self._user: Any = None

    async def _connect(self, user: Any) -> None:
        self._user = user
        self._connection.last_seen = self._connection.waiting_for_login = time.monotonic()
        self._node.attach(self._connection, self.abort)

    def _disconnect(self) -> None:
        super()._disconnect()
        for application in list(self._sub_connections):
            self._remove(application)

    def _charged(self, command: Command | Error) -> Connection:
        """Return the connection that a command is charged to.

        A command that names no application is charged to any sub-connection.
        """
        if isinstance(command, ApplicationCommand):
            return self._sub_connections.get(command.application, self._connection)
        return next(iter(self._sub_connections.values()), self._connection)

    async def _run_operation(self, command: Command) -> None:
        if not isinstance(command, ApplicationCommand):
            await super()._run_operation(command)
            return
        await self._check_application(command.application)
        if command.command is None:
            self._connection.send(Reply(id=command.id, data={}))
        elif isinstance(command.command, Login):
            await self._log_in(command.application, command.command)
        else:
            await self._execute_in(command.application, command.command)

    async def _check_application(self, name: str) -> None:
        """Raise NoSuchApplication if it does not exist or does not allow this protocol."""
        application = await self._node.context.registry.application(name)
        if application is None or not application.config.allows_protocol(self._connection.protocol.name):
            raise NoSuchApplication(f"There is no application {name[:64]}.")

    async def _log_in(self, application: str, command: Login) -> None:
        """Create a sub-connection, and remove it if the login fails."""
        if application in self._sub_connections:
            raise NameTaken("You are logged in there already; log out first.", retry=False)
        if len(self._sub_connections) >= MAX_APPLICATIONS:
            raise LoginRefused(f"One socket is logged in to at most {MAX_APPLICATIONS} applications.")
        connection = SubConnection(str(uuid.uuid4()), self._connection, application=application)
        connection.buckets = self._buckets[application]
        self._sub_connections[application] = connection
        try:
            if self._handshake is not None:
                connection.claims = await authenticate_handshake(
                    self._node.context, application, self._handshake
                )
            await self._node.connect(connection, None, self.abort)
            if connection.close_code is not None:
                raise LoginRefused(connection.close_reason)
            connection.established = True
            if self._is_session_user(command.name):
                await self._node.auth.login_by_session(connection, command, self._user)
            else:
                await self._commands[Login](connection, command)
        finally:
            if connection.user is None:
                self._remove(application)
            else:
                self._connection.waiting_for_login = None

    def _is_session_user(self, name: str | None) -> bool:
        """Return whether a name is that of the handshake's Django user."""
        user = self._user
        return user is not None and user.is_authenticated and bool(user.get_username() == name)

    async def _execute_in(self, application: str, command: Command | Error) -> None:
        connection = self._sub_connections.get(application)
        if connection is None:
            raise NotLoggedIn("Log in first.")
        if isinstance(command, Error):
            connection.send(command)
            return
        try:
            await self._commands[type(command)](connection, command)
            # The next command of the socket may concern another application.
            await connection.wait_idle()
        finally:
            if connection.user is None:
                self._remove(application)
                if not self._sub_connections:
                    self._connection.waiting_for_login = time.monotonic()

    def _remove(self, application: str) -> None:
        self._node.disconnect(self._sub_connections.pop(application))
