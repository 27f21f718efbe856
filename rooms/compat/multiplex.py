"""One socket whose client logs in to several applications, as goroomserver's clients do.

The connection that has the socket, the trunk, is in no application. For each application that its client
logs in to it grows a branch: to the engine a connection like any other, with a user, rooms and limits of
its own, which tells what it has to tell through the trunk. It goes with the logout, all go with the socket.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from typing import Any

from rooms.compat.sub_connection import SubConnection
from rooms.concurrency.rate_limits import Limit, TokenBucket
from rooms.hub.connection import Connection
from rooms.node.connect import Handshake, authenticate_handshake
from rooms.node.node import Node
from rooms.node.session import Session
from rooms.protocol.commands import Command, Login
from rooms.protocol.compat_commands import ApplicationCommand
from rooms.protocol.errors import LoginRefused, NameTaken, NotLoggedIn, RoomsError
from rooms.protocol.events import Error, Reply

# Each takes memory, and is a member of a group: a socket is in at most so many applications.
MOST_APPLICATIONS = 32


class NoSuchApplication(RoomsError):
    """Not for native clients, whose address names the application."""

    code = "no_such_application"


class MultiplexSession(Session):
    """Serves such a socket."""

    def __init__(self, node: Node, *arguments: Any, handshake: Handshake | None = None) -> None:
        super().__init__(node, *arguments, handshake=handshake)
        self._handshake = handshake
        self._branches: dict[str, SubConnection] = {}
        # Of each application: what a client may still ask does not grow with every login.
        self._buckets: defaultdict[str, dict[Limit, TokenBucket]] = defaultdict(dict)
        self._user: Any = None

    async def _connect(self, user: Any) -> None:
        self._user = user
        self._connection.last_seen = self._connection.waiting_for_login = time.monotonic()
        self._node.attach(self._connection, self.abort)

    def _disconnect(self) -> None:
        super()._disconnect()
        for application in list(self._branches):
            self._let_go(application)

    def _charged(self, command: Command | Error) -> Connection:
        """The branch that a request concerns. What names no application is charged to any of them."""
        if isinstance(command, ApplicationCommand):
            return self._branches.get(command.application, self._connection)
        return next(iter(self._branches.values()), self._connection)

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
            await self._ask(command.application, command.command)

    async def _check_application(self, name: str) -> None:
        """Raises NoSuchApplication where it is not there or does not speak this protocol."""
        application = await self._node.context.registry.application(name)
        if application is None or not application.config.allows_protocol(self._connection.protocol.name):
            raise NoSuchApplication(f"There is no application {name[:64]}.")

    async def _log_in(self, application: str, command: Login) -> None:
        """Grow a branch; without a user it is let go of again."""
        if application in self._branches:
            raise NameTaken("You are logged in there already; log out first.", retry=False)
        if len(self._branches) >= MOST_APPLICATIONS:
            raise LoginRefused(f"One socket is logged in to at most {MOST_APPLICATIONS} applications.")
        branch = SubConnection(str(uuid.uuid4()), self._connection, application=application)
        branch.buckets = self._buckets[application]
        self._branches[application] = branch
        try:
            if self._handshake is not None:
                branch.claims = await authenticate_handshake(self._node.context, application, self._handshake)
            await self._node.connect(branch, None, self.abort)
            if branch.close_code is not None:
                raise LoginRefused(branch.close_reason)
            branch.grown = True
            if self._is_the_session_of(command.name):
                await self._node.auth.login_by_session(branch, command, self._user)
            else:
                await self._commands[Login](branch, command)
        finally:
            if branch.user is None:
                self._let_go(application)
            else:
                self._connection.waiting_for_login = None

    def _is_the_session_of(self, name: str | None) -> bool:
        user = self._user
        return user is not None and user.is_authenticated and bool(user.get_username() == name)

    async def _ask(self, application: str, command: Command | Error) -> None:
        branch = self._branches.get(application)
        if branch is None:
            raise NotLoggedIn("Log in first.")
        if isinstance(command, Error):
            branch.send(command)
            return
        try:
            await self._commands[type(command)](branch, command)
            # The socket goes on to what may concern another branch.
            await branch.wait_idle()
        finally:
            if branch.user is None:
                self._let_go(application)
                if not self._branches:
                    self._connection.waiting_for_login = time.monotonic()

    def _let_go(self, application: str) -> None:
        self._node.disconnect(self._branches.pop(application))
