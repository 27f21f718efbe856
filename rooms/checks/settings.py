"""The system checks: what is wrong with a site's settings, said before the first visitor finds out.

``CHECKS`` at the end is the table of them. They read the settings as they are written, not by way of
``conf.py``, because that needs them to be right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.handlers.asgi import ASGIHandler
from django.utils.module_loading import import_string

from rooms.checks import channel_layers as layers
from rooms.checks.channel_layers import IN_MEMORY_LAYER as IN_MEMORY_LAYER
from rooms.conf import KEYS, PROTOCOL_NAMES, Settings
from rooms.histories.memory import MemoryHistory
from rooms.models import HistoryPolicy
from rooms.presence.memory import MemoryPresence


def check_rooms(app_configs: object = None, **_: Any) -> list[CheckMessage]:
    """Carry out every check of the table."""
    return [message for check in CHECKS for message in check()]


# What the settings say ---------------------------------------------------------------------------------


def _rooms() -> Mapping[str, Any]:
    """``settings.ROOMS``; nothing where it is not what it should be, which E004 reports."""
    given = getattr(settings, "ROOMS", {})
    return given if isinstance(given, Mapping) else {}


def _backends() -> Iterator[tuple[str, Any]]:
    """The dotted path of every backend that ``ROOMS`` names, and where it stands."""
    histories: Any = _rooms().get("HISTORIES")
    presence: Any = _rooms().get("PRESENCE")
    if _is_backends(histories):
        yield from ((f'ROOMS["HISTORIES"]["{name}"]', each["BACKEND"]) for name, each in histories.items())
    if _is_backend(presence):
        yield 'ROOMS["PRESENCE"]', presence["BACKEND"]


# What values must be -----------------------------------------------------------------------------------


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value) and value >= 0)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_doors(value: Any) -> bool:
    listed = isinstance(value, list | tuple | set | frozenset)
    return listed and bool(value) and all(protocol in PROTOCOL_NAMES for protocol in value)


def _is_backend(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("BACKEND"), str)
        and isinstance(value.get("OPTIONS", {}), Mapping)
        and set(value) <= {"BACKEND", "OPTIONS"}
    )


def _is_backends(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_backend(each) for each in value.values())


_BACKEND = '{"BACKEND": "dotted.path", "OPTIONS": {…}}, where OPTIONS may be left out'
# By the annotations of the fields of ``Settings``.
KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_is_whole, "a whole number, zero or more"),
    "float": (_is_number, "a number, zero or more"),
    "str": (_is_text, "a text"),
    "Sequence[str]": (_is_doors, f"a list of one or more of {', '.join(PROTOCOL_NAMES)}"),
    "Backend": (_is_backend, _BACKEND),
    "Mapping[str, Backend]": (_is_backends, f"a dict by history policy, of {_BACKEND}"),
}


# The checks --------------------------------------------------------------------------------------------


_WEBSOCKET = '"websocket": rooms.routing.websocket_application()'


def asgi_application() -> Iterator[CheckMessage]:
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        yield Error(
            "ASGI_APPLICATION is not set, so nothing serves the rooms' sockets.",
            hint='Set ASGI_APPLICATION = "yoursite.asgi.application", and give its ProtocolTypeRouter '
            f"{_WEBSOCKET}.",
            id="rooms.E001",
        )
        return
    try:
        application = import_string(path)
    except Exception as error:  # whatever a site's module does wrong
        yield Error(
            f"ASGI_APPLICATION cannot be imported from {path!r}.",
            hint=f"{type(error).__name__}: {error}",
            id="rooms.E001",
        )
        return
    # What a site may have wrapped around either cannot be looked into, and passes.
    if isinstance(application, ProtocolTypeRouter):
        has_sockets = "websocket" in application.application_mapping
    else:
        has_sockets = not isinstance(application, ASGIHandler)
    if not has_sockets:
        yield Warning(
            f"{path} has no route for WebSockets, so nothing serves the rooms' sockets.",
            hint=f'In that module: application = ProtocolTypeRouter({{"http": …, {_WEBSOCKET}}}).',
            id="rooms.W005",
        )


def unknown_keys() -> Iterator[CheckMessage]:
    for where, given, lawful in (
        ("ROOMS", _rooms(), KEYS),
        ('ROOMS["HISTORIES"]', _rooms().get("HISTORIES"), HistoryPolicy.values),
    ):
        for key in given if isinstance(given, Mapping) else ():
            if key not in lawful:
                near = get_close_matches(str(key), lawful, 1) or get_close_matches(
                    str(key).upper(), lawful, 1
                )
                yield Error(
                    f"{where} has no key {key!r}.",
                    hint=f"Did you mean {near[0]!r}?" if near else f"Lawful: {', '.join(lawful)}.",
                    id="rooms.E003",
                )


def wrong_types() -> Iterator[CheckMessage]:
    given = getattr(settings, "ROOMS", {})
    if not isinstance(given, Mapping):
        yield Error(f"ROOMS is {given!r}.", hint='A dict: ROOMS = {"PING_INTERVAL": 30}.', id="rooms.E004")
    for field in fields(Settings):
        key = field.name.upper()
        is_lawful, lawful = KINDS[str(field.type)]
        if key in _rooms() and not is_lawful(_rooms()[key]):
            yield Error(f'ROOMS["{key}"] is {_rooms()[key]!r}.', hint=f"Lawful: {lawful}.", id="rooms.E004")


def missing_backends() -> Iterator[CheckMessage]:
    for where, path in _backends():
        if layers.found(path) is None:
            yield Error(
                f"The backend of {where} cannot be imported from {path!r}.",
                hint="Look for a misspelling, or for a package that is not installed.",
                id="rooms.E005",
            )


def memory_beside_shared_layer() -> Iterator[CheckMessage]:
    layer, _config = layers.configured()
    if layer in {"", IN_MEMORY_LAYER}:
        return
    backends = dict(_backends())
    # Not named is in memory.
    backends.setdefault('ROOMS["PRESENCE"]', f"{MemoryPresence.__module__}.{MemoryPresence.__name__}")
    for where, path in backends.items():
        backend = layers.found(path)
        if isinstance(backend, type) and issubclass(backend, MemoryPresence | MemoryHistory):
            yield Warning(
                f"Processes share the channel layer, but not {where}: {path} is one process's memory.",
                hint="Use a backend that processes share: rooms.presence.redis.RedisPresence or "
                "rooms.presence.database.DatabasePresence for presence, "
                "rooms.histories.database.DatabaseHistory for history.",
                id="rooms.W003",
            )


CHECKS: Sequence[Callable[[], Iterator[CheckMessage]]] = (
    asgi_application,  # E001, W005
    unknown_keys,  # E003
    wrong_types,  # E004
    missing_backends,  # E005
    memory_beside_shared_layer,  # W003
    *layers.CHECKS,  # E002, E006, W001, W002, W004
)
