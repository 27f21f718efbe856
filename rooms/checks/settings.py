"""Checks the keys, values and backends of ``settings.ROOMS``.

``CHECKS`` at the end lists the checks. They read the raw settings and not those of ``conf.py``, which
raises an error for a mistake that a check is to report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from rooms.checks.channel_layers import IN_MEMORY_LAYER, configured_layer, import_or_none
from rooms.conf import KEYS, PROTOCOL_NAMES, Settings, unknown_key
from rooms.histories.memory import MemoryHistory
from rooms.models import HistoryPolicy
from rooms.presence.memory import MemoryPresence


def check_settings(app_configs: object = None, **_: Any) -> list[CheckMessage]:
    """Run the checks."""
    return [message for check in CHECKS for message in check()]


# The raw settings --------------------------------------------------------------------------------------


def _rooms() -> Mapping[str, Any]:
    """Return ``settings.ROOMS``; empty where it is no dict, which E004 reports."""
    given = getattr(settings, "ROOMS", {})
    return given if isinstance(given, Mapping) else {}


def _backends() -> Iterator[tuple[str, Any]]:
    """Yield the setting and the dotted path of every backend in ``ROOMS``."""
    histories: Any = _rooms().get("HISTORIES")
    presence: Any = _rooms().get("PRESENCE")
    if _is_backends(histories):
        yield from ((f'ROOMS["HISTORIES"]["{name}"]', each["BACKEND"]) for name, each in histories.items())
    if _is_backend(presence):
        yield 'ROOMS["PRESENCE"]', presence["BACKEND"]


# Types of values ---------------------------------------------------------------------------------------


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value) and value >= 0)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_protocols(value: Any) -> bool:
    is_list = isinstance(value, list | tuple | set | frozenset)
    return is_list and bool(value) and all(protocol in PROTOCOL_NAMES for protocol in value)


def _is_backend(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("BACKEND"), str)
        and isinstance(value.get("OPTIONS", {}), Mapping)
        and set(value) <= {"BACKEND", "OPTIONS"}
    )


def _is_backends(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_backend(each) for each in value.values())


_BACKEND = '{"BACKEND": "dotted.path", "OPTIONS": {…}}, where OPTIONS is optional'
# By the annotation of a field of ``Settings``.
TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_is_integer, "an integer of at least 0"),
    "float": (_is_number, "a number of at least 0"),
    "str": (_is_text, "a string"),
    "Sequence[str]": (_are_protocols, f"a list of at least one of {', '.join(PROTOCOL_NAMES)}"),
    "Backend": (_is_backend, _BACKEND),
    "Mapping[str, Backend]": (_is_backends, f"a dict from history policies to {_BACKEND}"),
}


# The checks --------------------------------------------------------------------------------------------


def unknown_keys() -> Iterator[CheckMessage]:
    for setting, given, expected in (
        ("ROOMS", _rooms(), KEYS),
        ('ROOMS["HISTORIES"]', _rooms().get("HISTORIES"), HistoryPolicy.values),
    ):
        for key in given if isinstance(given, Mapping) else ():
            if key not in expected:
                yield Error(
                    unknown_key(setting, key, expected),
                    hint=f"Expected keys: {', '.join(expected)}.",
                    id="rooms.E003",
                )


def wrong_types() -> Iterator[CheckMessage]:
    given = getattr(settings, "ROOMS", {})
    if not isinstance(given, Mapping):
        yield Error(
            f"Expected a dict as the setting ROOMS, got {given!r}.",
            hint='For example: ROOMS = {"PING_INTERVAL": 30}.',
            id="rooms.E004",
        )
    for field in fields(Settings):
        key = field.name.upper()
        is_valid, expected = TYPES[str(field.type)]
        if key in _rooms() and not is_valid(_rooms()[key]):
            yield Error(
                f'Expected {expected} as ROOMS["{key}"], got {_rooms()[key]!r}.',
                hint="Correct the value, or remove the key to use the default.",
                id="rooms.E004",
            )


def missing_backends() -> Iterator[CheckMessage]:
    for setting, path in _backends():
        if import_or_none(path) is None:
            yield Error(
                f"The backend of {setting} cannot be imported from {path!r}.",
                hint="Correct the dotted path, or install the package.",
                id="rooms.E005",
            )


def memory_beside_shared_layer() -> Iterator[CheckMessage]:
    layer, _config = configured_layer()
    if layer in {"", IN_MEMORY_LAYER}:
        return
    backends = dict(_backends())
    # The default of presence is in memory.
    backends.setdefault('ROOMS["PRESENCE"]', f"{MemoryPresence.__module__}.{MemoryPresence.__name__}")
    for setting, path in backends.items():
        backend = import_or_none(path)
        if isinstance(backend, type) and issubclass(backend, MemoryPresence | MemoryHistory):
            yield Warning(
                f"The channel layer is shared by processes, but {setting} is in memory: {path}.",
                hint="Use a shared backend: rooms.presence.redis.RedisPresence or "
                "rooms.presence.database.DatabasePresence for presence, "
                "rooms.histories.database.DatabaseHistory for history.",
                id="rooms.W003",
            )


CHECKS: Sequence[Callable[[], Iterator[CheckMessage]]] = (
    unknown_keys,  # E003
    wrong_types,  # E004
    missing_backends,  # E005
    memory_beside_shared_layer,  # W003
)
