"""The class that a site's extensions derive from.

An instance belongs to one application or one room in one process. Its handlers may be coroutines
or plain functions (those run in a bounded thread pool); handlers of one room never overlap.
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

Handler = TypeVar("Handler", bound=Callable[..., Any])

# How long nothing happens before an extension that takes frames is told, unless it says otherwise.
QUIET_SECONDS = 60.0


def message(name: str) -> Callable[[Handler], Handler]:
    """Mark a method as the taker of messages whose event is ``name``.

    What is taken does not go to the room; the handler decides what the room hears. Raises
    ValueError for an empty name.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= 64:
        raise ValueError(f"@message takes an event name of 1 to 64 characters, got {name!r}.")

    def mark(handler: Handler) -> Handler:
        handler.__handles__ = name  # type: ignore[attr-defined]
        return handler

    return mark


class Extension:
    """Derive from it, override the hooks you need, and ``@register`` the class.

    ``settings`` holds the cleaned values of the ``Settings`` form; they change while running when
    somebody saves them in the admin. ``room`` is None for an application's extension.
    """

    Settings: type[forms.Form] = forms.Form

    # Seconds until ``on_timeout`` is called, and again; None: never. May be set while running: the wait
    # begins anew. With ``on_receive`` it also does so whenever something happens to a connection, and is 60
    # unless another is said.
    timeout: float | None = None

    _services: ExtensionServices | None = None
    _timeout_set: Callable[[], object] | None = None

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
        if name == "timeout" and self._timeout_set is not None:
            self._timeout_set()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        handlers: dict[str, str] = {}
        overridden: set[str] = set()
        for name in dir(cls):
            if name.startswith("on_") and name not in HOOKS:
                raise TypeError(
                    f"{cls.__name__}.{name} is not a hook. Lawful hooks: {', '.join(sorted(HOOKS))}."
                )
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
        said = any("timeout" in vars(each) for each in cls.__mro__ if each is not Extension)
        if "on_receive" in overridden and not said:
            cls.timeout = QUIET_SECONDS

    def attach(self, services: ExtensionServices, timeout_set: Callable[[], object]) -> None:
        """Called by the engine, before ``init``; ``timeout_set`` is to be called when ``timeout`` is set."""
        self._services, self._timeout_set = services, timeout_set

    def detach(self) -> None:
        """Called by the engine when it has no more use for this instance; handlers may still be at work."""
        self._timeout_set = None

    # Connections by number ---------------------------------------------------------------------------

    @property
    def connections(self) -> list[int]:
        """The numbers of the application's connections that are open in this process."""
        return self._node().connections(self.application)

    async def write(self, number: int, data: Any) -> None:
        """Tell one connection something as the server. ``bytes`` and ``str`` (its UTF-8) are what clients of
        gowsev get as they are; for others, and given as anything else that JSON can hold, it is the value.
        Raises UnknownConnection where no connection with that number is open in this process."""
        await self._node().write(self.application, number, data)

    async def close(self, number: int) -> None:
        """Close one connection, after what waits to be written. Raises UnknownConnection."""
        await self._node().close(self.application, number)

    async def open_connection(
        self, url: str, *, protocol: str = "gowsev", headers: Mapping[str, str] | None = None
    ) -> OutboundHandle:
        """Have this process open a WebSocket to another service and serve that as if it had come in: it has
        a number, and ``on_connect``, ``on_receive`` and ``on_disconnect`` are called (application only).

        Returns at once; the service is dialled in the background, and again when the connection is lost,
        unless this server closed it for good.
        Raises ValueError for an address that is not ``ws://`` or ``wss://`` or a protocol that there is
        not, RuntimeError where too many are dialled already or the package ``websockets`` is missing.
        """
        if self.room is not None:
            raise RuntimeError("Only an application's extension dials, not a room's.")
        if self._timeout_set is None:
            raise RuntimeError(f"This {type(self).__name__} is not running (any more), so it dials nobody.")
        return await self._node().open_connection(self, url, protocol=protocol, headers=headers or {})

    def _node(self) -> ExtensionServices:
        if self._services is None:
            raise RuntimeError(f"This {type(self).__name__} is not running.")
        return self._services

    # Hooks -------------------------------------------------------------------------------------------

    async def init(self) -> None:
        """Called once, when the application or room is ready, before any other handler."""

    async def on_handshake(self, event: HandshakeEvent) -> None:
        """Somebody wants to connect (application only): fill ``event.claims``, or raise Refused (an HTTP
        status from 400 to 499) or Rejected (403) to turn them away before the socket is accepted."""

    async def on_connect(self, event: ConnectionEvent) -> None:
        """A socket was accepted (application only)."""

    async def on_disconnect(self, event: ConnectionEvent) -> None:
        """A socket ended (application only)."""

    async def on_receive(self, event: ReceiveEvent) -> None:
        """A frame came through the gowsev door (application only). An extension with this hook decides by
        itself what is spoken there; without it that is gowsev's subscribe and publish."""

    async def on_login(self, event: ConnectionEvent) -> None:
        """Raise Rejected to refuse the login (application only)."""

    async def on_logout(self, event: ConnectionEvent) -> None:
        """Somebody logged out (application only)."""

    async def on_join(self, event: JoinEvent) -> None:
        """Raise Rejected to refuse the join."""

    async def on_before_leave(self, event: LeaveEvent) -> None:
        """A user asks to leave: raise Rejected to refuse. Who drops, is put out or logs out does not ask."""

    async def on_leave(self, event: LeaveEvent) -> None:
        """A user is out of the room."""

    async def on_message(self, event: MessageEvent) -> None:
        """A message that nobody takes is about to go to the room: change ``event.data``, or raise
        Rejected to refuse it."""

    async def on_timeout(self) -> None:
        """``timeout`` seconds have passed; of an extension with ``on_receive``, without anything happening
        to a connection."""

    async def on_error(self, event: object, error: BaseException) -> None:
        """A handler of this extension raised ``error`` while it handled ``event``."""


HOOKS = frozenset(name for name in vars(Extension) if name.startswith("on_"))


def _check_timeout(owner: str, timeout: object) -> None:
    """Raises ValueError for what nobody can wait for."""
    if timeout is None:
        return
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not is_number or not 0 < timeout < math.inf:  # type: ignore[operator]
        raise ValueError(
            f"{owner}.timeout is a number of seconds above 0, or None for never; got {timeout!r}."
        )
