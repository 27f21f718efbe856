"""The class that a site's extensions derive from.

An instance belongs to one application or one room in one process. Its handlers may be coroutines
or plain functions (those run in a bounded thread pool); handlers of one room never overlap.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from django import forms

from rooms.extensions.contexts import ConnectionEvent, JoinEvent, LeaveEvent, MessageEvent, RoomContext

Handler = TypeVar("Handler", bound=Callable[..., Any])


def message(name: str) -> Callable[[Handler], Handler]:
    """Mark a method as the taker of messages whose event is ``name``.

    What is taken does not go to the room; the handler decides what the room hears. Raises
    ValueError for an empty name.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= 64:
        raise ValueError(f"@message takes an event name of 1 to 64 characters, got {name!r}.")

    def mark(handler: Handler) -> Handler:
        handler.__takes__ = name  # type: ignore[attr-defined]
        return handler

    return mark


class Extension:
    """Derive from it, override the hooks you need, and ``@register`` the class.

    ``settings`` holds the cleaned values of the ``Settings`` form; they change while running when
    somebody saves them in the admin. ``room`` is None for an application's extension.
    """

    Settings: type[forms.Form] = forms.Form

    # Seconds between calls of ``on_timeout``; None: never. May be set while running.
    timeout: float | None = None

    takers: ClassVar[Mapping[str, str]] = {}
    overridden: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, application: str, room: RoomContext | None, settings: Mapping[str, Any]) -> None:
        self.application = application
        self.room = room
        self.settings = settings

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        takers: dict[str, str] = {}
        overridden: set[str] = set()
        for name in dir(cls):
            if name.startswith("on_") and name not in HOOKS:
                raise TypeError(
                    f"{cls.__name__}.{name} is not a hook. Lawful hooks: {', '.join(sorted(HOOKS))}."
                )
            handler = inspect.getattr_static(cls, name)
            if name in HOOKS and handler is not inspect.getattr_static(Extension, name):
                overridden.add(name)
            if (event := getattr(handler, "__takes__", None)) is not None:
                if event in takers:
                    raise TypeError(
                        f"{cls.__name__} takes the message {event!r} twice: in {takers[event]} and in {name}."
                    )
                takers[event] = name
        cls.takers, cls.overridden = takers, frozenset(overridden)

    async def init(self) -> None:
        """Called once, when the application or room is ready, before any other handler."""

    async def on_connect(self, event: ConnectionEvent) -> None:
        """A socket was accepted (application only)."""

    async def on_disconnect(self, event: ConnectionEvent) -> None:
        """A socket ended (application only)."""

    async def on_login(self, event: ConnectionEvent) -> None:
        """Raise Rejected to refuse the login (application only)."""

    async def on_logout(self, event: ConnectionEvent) -> None:
        """Somebody logged out (application only)."""

    async def on_join(self, event: JoinEvent) -> None:
        """Raise Rejected to refuse the join."""

    async def on_leave(self, event: LeaveEvent) -> None:
        """A user is out of the room."""

    async def on_message(self, event: MessageEvent) -> None:
        """A message that nobody takes is about to go to the room: change ``event.data``, or raise
        Rejected to refuse it."""

    async def on_timeout(self) -> None:
        """``timeout`` seconds have passed."""

    async def on_error(self, event: object, error: BaseException) -> None:
        """A handler of this extension raised ``error`` while it handled ``event``."""


HOOKS = frozenset(name for name in vars(Extension) if name.startswith("on_"))
