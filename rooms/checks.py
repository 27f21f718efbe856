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
from urllib.parse import parse_qs, urlsplit

from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.handlers.asgi import ASGIHandler
from django.utils.module_loading import import_string

from rooms.conf import DOORS, KEYS, Settings
from rooms.histories.memory import MemoryHistory
from rooms.models import HistoryPolicy
from rooms.presence.memory import MemoryPresence

IN_MEMORY_LAYER = "channels.layers.InMemoryChannelLayer"
REDIS_CORE_LAYER = "channels_redis.core.RedisChannelLayer"

# A burst of one turn of the event loop must fit: above their capacity layers drop without a word.
SMALLEST_CAPACITY = 1000
LAYERS_OWN_CAPACITY = 100
# The core layer of channels_redis waits so long in one read.
LONGEST_WAIT = 5


def check_rooms(app_configs: object = None, **_: Any) -> list[CheckMessage]:
    """Carry out every check of the table."""
    return [message for check in CHECKS for message in check()]


# What the settings say ---------------------------------------------------------------------------------


def _rooms() -> Mapping[str, Any]:
    """``settings.ROOMS``; nothing where it is not what it should be, which E004 reports."""
    given = getattr(settings, "ROOMS", {})
    return given if isinstance(given, Mapping) else {}


def _alias() -> str:
    return str(_rooms().get("CHANNEL_LAYER", "default"))


def _layer() -> tuple[str, Mapping[str, Any]]:
    """The dotted path and the CONFIG of the channel layer in use."""
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get(_alias(), {})
    return layer.get("BACKEND", ""), layer.get("CONFIG", {})


def _backends() -> Iterator[tuple[str, Any]]:
    """The dotted path of every backend that ``ROOMS`` names, and where it stands."""
    histories: Any = _rooms().get("HISTORY")
    presence: Any = _rooms().get("PRESENCE")
    if _is_backends(histories):
        yield from ((f'ROOMS["HISTORY"]["{name}"]', each["BACKEND"]) for name, each in histories.items())
    if _is_backend(presence):
        yield 'ROOMS["PRESENCE"]', presence["BACKEND"]


def _found(path: str) -> Any:
    """What a dotted path leads to; None if it leads nowhere."""
    try:
        return import_string(path)
    except ImportError:
        return None


# What values must be -----------------------------------------------------------------------------------


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value) and value >= 0)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_doors(value: Any) -> bool:
    listed = isinstance(value, list | tuple | set | frozenset)
    return listed and bool(value) and all(door in DOORS for door in value)


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
    "Sequence[str]": (_is_doors, f"a list of one or more of {', '.join(DOORS)}"),
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


def channel_layer() -> Iterator[CheckMessage]:
    path, _config = _layer()
    if not path:
        yield Error(
            f"There is no channel layer {_alias()!r} in CHANNEL_LAYERS.",
            hint=f'For one process: CHANNEL_LAYERS = {{"{_alias()}": {{"BACKEND": "{IN_MEMORY_LAYER}", '
            '"CONFIG": {"capacity": 10_000}}}.',
            id="rooms.E002",
        )
    elif _found(path) is None:
        yield Error(
            f"The channel layer {_alias()!r} cannot be imported from {path!r}.",
            hint="Look for a misspelling, or for a package that is not installed.",
            id="rooms.E002",
        )


def unknown_keys() -> Iterator[CheckMessage]:
    for where, given, lawful in (
        ("ROOMS", _rooms(), KEYS),
        ('ROOMS["HISTORY"]', _rooms().get("HISTORY"), HistoryPolicy.values),
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
        yield Error(f"ROOMS is {given!r}.", hint='A dict: ROOMS = {"PING_SECONDS": 30}.', id="rooms.E004")
    for field in fields(Settings):
        key = field.name.upper()
        is_lawful, lawful = KINDS[str(field.type)]
        if key in _rooms() and not is_lawful(_rooms()[key]):
            yield Error(f'ROOMS["{key}"] is {_rooms()[key]!r}.', hint=f"Lawful: {lawful}.", id="rooms.E004")


def missing_backends() -> Iterator[CheckMessage]:
    for where, path in _backends():
        if _found(path) is None:
            yield Error(
                f"The backend of {where} cannot be imported from {path!r}.",
                hint="Look for a misspelling, or for a package that is not installed.",
                id="rooms.E005",
            )


def memory_in_production() -> Iterator[CheckMessage]:
    if _layer()[0] == IN_MEMORY_LAYER and not settings.DEBUG:
        yield Warning(
            "The channel layer is in memory and DEBUG is off: every process has rooms of its own, and "
            "other commands do not reach them.",
            hint="Use a layer that processes share, such as channels_redis.pubsub.RedisPubSubChannelLayer. "
            'Where one process serves the site: SILENCED_SYSTEM_CHECKS = ["rooms.W001"].',
            id="rooms.W001",
        )


def small_capacity() -> Iterator[CheckMessage]:
    path, config = _layer()
    if path not in {IN_MEMORY_LAYER, REDIS_CORE_LAYER}:
        return
    capacity = config.get("capacity", LAYERS_OWN_CAPACITY)
    if capacity < SMALLEST_CAPACITY:
        yield Warning(
            f"The channel layer {_alias()!r} holds {capacity} messages and drops what comes above.",
            hint=f'Give it "CONFIG": {{"capacity": 10_000}}; {SMALLEST_CAPACITY} is the least.',
            id="rooms.W002",
        )


def memory_beside_shared_layer() -> Iterator[CheckMessage]:
    layer, _config = _layer()
    if layer in {"", IN_MEMORY_LAYER}:
        return
    backends = dict(_backends())
    # Not named is in memory.
    backends.setdefault('ROOMS["PRESENCE"]', f"{MemoryPresence.__module__}.{MemoryPresence.__name__}")
    for where, path in backends.items():
        backend = _found(path)
        if isinstance(backend, type) and issubclass(backend, MemoryPresence | MemoryHistory):
            yield Warning(
                f"Processes share the channel layer, but not {where}: {path} is one process's memory.",
                hint="Use a backend that processes share: rooms.presence.redis.RedisPresence for presence, "
                "rooms.histories.database.DatabaseHistory for history.",
                id="rooms.W003",
            )


def short_timeouts() -> Iterator[CheckMessage]:
    path, config = _layer()
    if path != REDIS_CORE_LAYER:
        return
    hosts = config.get("hosts") or [{}]
    if any(not _waits_long_enough(host) for host in hosts):
        yield Warning(
            f"The channel layer {_alias()!r} has a host whose reads time out before the layer's own wait of "
            f"{LONGEST_WAIT} s ends (the default of redis-py 8): idle sockets would be closed.",
            hint='Write hosts as dicts: {"address": "redis://…", "socket_timeout": 15}.',
            id="rooms.W004",
        )


def _waits_long_enough(host: Any) -> bool:
    """``host`` is an address, a pair of host and port, or a dict of options, as channels_redis takes it."""
    options: Mapping[str, Any] = host if isinstance(host, Mapping) else {"address": host}
    timeout = options.get("socket_timeout", 0)
    # What the address says comes first, as in redis-py.
    for said in parse_qs(urlsplit(str(options.get("address", ""))).query).get("socket_timeout", ()):
        timeout = said
    try:
        return timeout is None or float(timeout) > LONGEST_WAIT
    except ValueError:
        return False


CHECKS: Sequence[Callable[[], Iterator[CheckMessage]]] = (
    asgi_application,  # E001, W005
    channel_layer,  # E002
    unknown_keys,  # E003
    wrong_types,  # E004
    missing_backends,  # E005
    memory_in_production,  # W001
    small_capacity,  # W002
    memory_beside_shared_layer,  # W003
    short_timeouts,  # W004
)
