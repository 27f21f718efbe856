"""The base class of extensions.

An instance belongs to one application or one room of one process. Handlers are coroutines or plain
functions, which run in a bounded thread pool; handlers of one room never overlap.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from django import forms

from rooms.extensions.contexts import (
    ConnectionEvent,
    ExtensionServices,
    HandshakeEvent,
    JoinEvent,
    LeaveEvent,
    MessageEvent,
    OutboundHandle,
    ReceiveEvent,
    RoomContext,
)
from rooms.protocol.validators import MAX_EVENT_LENGTH

Handler = TypeVar("Handler", bound=Callable[..., Any])

# The timeout of an extension with ``on_receive`` that sets none.
DEFAULT_IDLE_TIMEOUT = 60.0


def message(name: str) -> Callable[[Handler], Handler]:
    """Mark a method as the handler of messages with the event ``name``.

    A handled message is not published in the room; the handler publishes what it wants. Raises
    ValueError for a name that is no event name.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_EVENT_LENGTH:
        raise ValueError(
            f"Expected an event name of 1 to {MAX_EVENT_LENGTH} characters, got @message({name!r})."
        )

    def mark(handler: Handler) -> Handler:
        handler.__handles__ = name  # type: ignore[attr-defined]
        return handler

    return mark


class Extension:
    """Handles events of an application or a room.

    Subclass it, override hooks, and ``@register`` the class. ``settings`` holds the cleaned values of the
    ``Settings`` form, and is replaced when they are saved in the admin. ``room`` is None for the extension of
    an application.
    """

    Settings: type[forms.Form] = forms.Form

    # Seconds between calls of ``on_timeout``; None: never. Setting it restarts the timer. With ``on_receive``
    # the default is 60, and each event of a connection restarts the timer, too.
    timeout: float | None = None

    _services: ExtensionServices | None = None
    _on_timeout_set: Callable[[], object] | None = None

    # The names of methods by the event that they handle, and of hooks that the class overrides.
    handlers: ClassVar[Mapping[str, str]] = {}
    overridden: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, application: str, room: RoomContext | None, settings: Mapping[str, Any]) -> None:
        self.application = application
        self.room = room
        self.settings = settings

    def __setattr__(self, name: str, value: object) -> None:
        if name == "timeout":
            _check_timeout(type(self).__name__, value)
        super().__setattr__(name, value)
        if name == "timeout" and self._on_timeout_set is not None:
            self._on_timeout_set()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        handlers: dict[str, str] = {}
        overridden: set[str] = set()
        for name in dir(cls):
            if name.startswith("on_") and name not in HOOKS:
                raise TypeError(f"Expected a hook of {', '.join(sorted(HOOKS))}, got {cls.__name__}.{name}.")
            handler = inspect.getattr_static(cls, name)
            if name in HOOKS and handler is not inspect.getattr_static(Extension, name):
                overridden.add(name)
            if (event := getattr(handler, "__handles__", None)) is not None:
                if event in handlers:
                    raise TypeError(
                        f"{cls.__name__} handles {event!r} twice: in {handlers[event]} and in {name}."
                    )
                handlers[event] = name
        cls.handlers, cls.overridden = handlers, frozenset(overridden)
        _check_timeout(cls.__name__, inspect.getattr_static(cls, "timeout"))
        has_timeout = any("timeout" in vars(each) for each in cls.__mro__ if each is not Extension)
        if "on_receive" in overridden and not has_timeout:
            cls.timeout = DEFAULT_IDLE_TIMEOUT

    def attach(self, services: ExtensionServices, on_timeout_set: Callable[[], object]) -> None:
        """Connect the instance to the node; the runner calls this before ``init``."""
        self._services, self._on_timeout_set = services, on_timeout_set

    def detach(self) -> None:
        """Disconnect the instance when it stops; handlers may still be running."""
        self._on_timeout_set = None

    # Connections by number ---------------------------------------------------------------------------

    @property
    def connections(self) -> list[int]:
        """The numbers of the open connections of the application in this process."""
        return self._node().connections(self.application)

    async def write(self, number: int, data: Any) -> None:
        """Send data to one connection, as the server.

        Clients of gowsev receive ``bytes`` and ``str`` (as UTF-8) unchanged. For other clients, and for any
        other JSON value, it is the value of a message. Raises UnknownConnection for a number without an open
        connection in this process.
        """
        await self._node().write(self.application, number, data)

    async def close(self, number: int) -> None:
        """Close one connection after its send queue. Raises UnknownConnection."""
        await self._node().close(self.application, number)

    async def open_connection(
        self, url: str, *, protocol: str = "gowsev", headers: Mapping[str, str] | None = None
    ) -> OutboundHandle:
        """Open a WebSocket to another service, from this process (application only).

        It is served like a connection that a client opened: it has a number, and calls ``on_connect``,
        ``on_receive`` and ``on_disconnect``. Returns at once and connects in the background; a lost
        connection is reopened, unless this server closed it with a final code. Raises ValueError for a URL
        that is not ``ws://`` or ``wss://`` or an unknown protocol, RuntimeError above the maximum of
        connections or without the package ``websockets``.
        """
        if self.room is not None:
            raise RuntimeError("Only the extension of an application opens connections, not that of a room.")
        if self._on_timeout_set is None:
            raise RuntimeError(f"This {type(self).__name__} is not running, so it opens no connection.")
        return await self._node().open_connection(self, url, protocol=protocol, headers=headers or {})

    def _node(self) -> ExtensionServices:
        if self._services is None:
            raise RuntimeError(f"This {type(self).__name__} is not running.")
        return self._services

    # Hooks -------------------------------------------------------------------------------------------

    async def init(self) -> None:
        """Called once, before any other handler."""

    async def on_handshake(self, event: HandshakeEvent) -> None:
        """Called before a WebSocket is accepted (application only).

        Fill ``event.claims``. Raise HandshakeRejected (an HTTP status from 400 to 499) or Rejected (403) to
        refuse the connection.
        """

    async def on_connect(self, event: ConnectionEvent) -> None:
        """A WebSocket was accepted (application only)."""

    async def on_disconnect(self, event: ConnectionEvent) -> None:
        """A WebSocket was closed (application only)."""

    async def on_receive(self, event: ReceiveEvent) -> None:
        """A client of gowsev sent a frame (application only).

        An extension with this hook defines the protocol of these frames; without it that is gowsev's
        subscribe and publish.
        """

    async def on_login(self, event: ConnectionEvent) -> None:
        """Raise Rejected to refuse the login (application only)."""

    async def on_logout(self, event: ConnectionEvent) -> None:
        """A user logged out (application only)."""

    async def on_join(self, event: JoinEvent) -> None:
        """Raise Rejected to refuse the join."""

    async def on_before_leave(self, event: LeaveEvent) -> None:
        """A user asks to leave: raise Rejected to refuse.

        Not called for a lost connection, a kick or a logout.
        """

    async def on_leave(self, event: LeaveEvent) -> None:
        """A user left the room, for any reason."""

    async def on_message(self, event: MessageEvent) -> None:
        """A message without a handler is about to be published.

        Change ``event.data``, or raise Rejected to refuse the message.
        """

    async def on_timeout(self) -> None:
        """``timeout`` seconds have passed; with ``on_receive``, without activity."""

    async def on_error(self, event: object, error: BaseException) -> None:
        """A handler of this extension raised ``error`` for ``event``."""


HOOKS = frozenset(name for name in vars(Extension) if name.startswith("on_"))


def _check_timeout(owner: str, timeout: object) -> None:
    """Raise ValueError for a value that is no timeout."""
    if timeout is None:
        return
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not is_number or not 0 < timeout < math.inf:  # type: ignore[operator]
        raise ValueError(
            f"Expected a number of seconds above 0, or None, as {owner}.timeout, got {timeout!r}."
        )
