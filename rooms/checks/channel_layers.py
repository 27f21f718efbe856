"""The system checks of the channel layer: is there one, can it be used, and is it large enough.

``CHECKS`` at the end is the table of them; ``rooms/checks/settings.py`` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections
from django.utils.module_loading import import_string

IN_MEMORY_LAYER = "channels.layers.InMemoryChannelLayer"
REDIS_CORE_LAYER = "channels_redis.core.RedisChannelLayer"
POSTGRES_LAYER = "rooms.layers.postgres.PostgresLayer"
LOCAL_LAYER = "rooms.layers.unix.LocalLayer"

# A burst of one turn of the event loop must fit: above their capacity layers drop without a word.
SMALLEST_CAPACITY = 1000
LAYERS_OWN_CAPACITY = 100
# The core layer of channels_redis waits so long in one read.
LONGEST_WAIT = 5


def configured() -> tuple[str, Mapping[str, Any]]:
    """The dotted path and the CONFIG of the channel layer in use."""
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get(_alias(), {})
    return layer.get("BACKEND", ""), layer.get("CONFIG", {})


def found(path: str) -> Any:
    """What a dotted path leads to; None if it leads nowhere."""
    try:
        return import_string(path)
    except ImportError:
        return None


def _alias() -> str:
    rooms = getattr(settings, "ROOMS", {})
    return str(rooms.get("CHANNEL_LAYER", "default")) if isinstance(rooms, Mapping) else "default"


def channel_layer() -> Iterator[CheckMessage]:
    path, _config = configured()
    if not path:
        yield Error(
            f"There is no channel layer {_alias()!r} in CHANNEL_LAYERS.",
            hint=f'For one process: CHANNEL_LAYERS = {{"{_alias()}": {{"BACKEND": "{IN_MEMORY_LAYER}", '
            '"CONFIG": {"capacity": 10_000}}}.',
            id="rooms.E002",
        )
    elif found(path) is None:
        yield Error(
            f"The channel layer {_alias()!r} cannot be imported from {path!r}.",
            hint="Look for a misspelling, or for a package that is not installed.",
            id="rooms.E002",
        )


def layer_without_its_database() -> Iterator[CheckMessage]:
    path, config = configured()
    if path != POSTGRES_LAYER:
        return
    using = config.get("using", "default")
    vendor = connections[using].vendor if using in connections else None
    if vendor != "postgresql":
        yield Error(
            f"The channel layer {_alias()!r} is on the database {using!r}, "
            f"which is {'of ' + vendor if vendor else 'not in DATABASES'}.",
            hint=f"Lawful: one on PostgreSQL. On SQLite the processes of one machine have {LOCAL_LAYER}.",
            id="rooms.E006",
        )


def memory_in_production() -> Iterator[CheckMessage]:
    if configured()[0] == IN_MEMORY_LAYER and not settings.DEBUG:
        yield Warning(
            "The channel layer is in memory and DEBUG is off: every process has rooms of its own, and "
            "other commands do not reach them.",
            hint="Use a layer that processes share: channels_redis.pubsub.RedisPubSubChannelLayer, "
            f"{POSTGRES_LAYER}, or {LOCAL_LAYER} on one machine. "
            'Where one process serves the site: SILENCED_SYSTEM_CHECKS = ["rooms.W001"].',
            id="rooms.W001",
        )


def small_capacity() -> Iterator[CheckMessage]:
    path, config = configured()
    if path not in {IN_MEMORY_LAYER, REDIS_CORE_LAYER}:
        return
    capacity = config.get("capacity", LAYERS_OWN_CAPACITY)
    if capacity < SMALLEST_CAPACITY:
        yield Warning(
            f"The channel layer {_alias()!r} holds {capacity} messages and drops what comes above.",
            hint=f'Give it "CONFIG": {{"capacity": 10_000}}; {SMALLEST_CAPACITY} is the least.',
            id="rooms.W002",
        )


def short_timeouts() -> Iterator[CheckMessage]:
    path, config = configured()
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
    channel_layer,  # E002
    layer_without_its_database,  # E006
    memory_in_production,  # W001
    small_capacity,  # W002
    short_timeouts,  # W004
)
