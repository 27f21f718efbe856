"""Checks that the channel layer exists, is usable and has a sufficient capacity.

``CHECKS`` at the end lists the checks.
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

# A burst of one iteration of the event loop must fit: layers silently drop what exceeds their capacity.
MIN_CAPACITY = 1000
# What the layers have without a CONFIG.
DEFAULT_CAPACITY = 100
# The blocking read of channels_redis' core layer, in seconds.
BLOCKING_READ_TIMEOUT = 5


def check_channel_layer(app_configs: object = None, **_: Any) -> list[CheckMessage]:
    """Run the checks."""
    return [message for check in CHECKS for message in check()]


def configured_layer() -> tuple[str, Mapping[str, Any]]:
    """Return the dotted path and the CONFIG of the channel layer that rooms uses."""
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get(_alias(), {})
    return layer.get("BACKEND", ""), layer.get("CONFIG", {})


def import_or_none(path: str) -> Any:
    """Import a dotted path; None where that fails."""
    try:
        return import_string(path)
    except ImportError:
        return None


def _alias() -> str:
    rooms = getattr(settings, "ROOMS", {})
    return str(rooms.get("CHANNEL_LAYER", "default")) if isinstance(rooms, Mapping) else "default"


def channel_layer() -> Iterator[CheckMessage]:
    path, _config = configured_layer()
    if not path:
        yield Error(
            f"CHANNEL_LAYERS has no channel layer {_alias()!r}.",
            hint=f'For a single process: CHANNEL_LAYERS = {{"{_alias()}": {{"BACKEND": "{IN_MEMORY_LAYER}", '
            '"CONFIG": {"capacity": 10_000}}}.',
            id="rooms.E002",
        )
    elif import_or_none(path) is None:
        yield Error(
            f"The channel layer {_alias()!r} cannot be imported from {path!r}.",
            hint="Correct the dotted path, or install the package.",
            id="rooms.E002",
        )


def layer_without_postgresql() -> Iterator[CheckMessage]:
    path, config = configured_layer()
    if path != POSTGRES_LAYER:
        return
    using = config.get("using", "default")
    vendor = connections[using].vendor if using in connections else None
    if vendor != "postgresql":
        yield Error(
            f"The channel layer {_alias()!r} expects a PostgreSQL database, but {using!r} is "
            f"{vendor or 'not in DATABASES'}.",
            hint=f'Set "CONFIG": {{"using": …}}, or use {LOCAL_LAYER} for the processes of one machine.',
            id="rooms.E006",
        )


def memory_in_production() -> Iterator[CheckMessage]:
    if configured_layer()[0] == IN_MEMORY_LAYER and not settings.DEBUG:
        yield Warning(
            "The channel layer is in memory and DEBUG is off: each process has its own rooms, which "
            "management commands cannot reach.",
            hint="Use a shared layer: channels_redis.pubsub.RedisPubSubChannelLayer, "
            f"{POSTGRES_LAYER}, or {LOCAL_LAYER} on one machine. "
            'If one process serves the site: SILENCED_SYSTEM_CHECKS = ["rooms.W001"].',
            id="rooms.W001",
        )


def small_capacity() -> Iterator[CheckMessage]:
    path, config = configured_layer()
    if path not in {IN_MEMORY_LAYER, REDIS_CORE_LAYER}:
        return
    capacity = config.get("capacity", DEFAULT_CAPACITY)
    if capacity < MIN_CAPACITY:
        yield Warning(
            f"The channel layer {_alias()!r} drops messages above its capacity of {capacity} messages.",
            hint=f'Set "CONFIG": {{"capacity": 10_000}}; at least {MIN_CAPACITY} is expected.',
            id="rooms.W002",
        )


def short_timeouts() -> Iterator[CheckMessage]:
    path, config = configured_layer()
    if path != REDIS_CORE_LAYER:
        return
    hosts = config.get("hosts") or [{}]
    if any(not _has_sufficient_timeout(host) for host in hosts):
        yield Warning(
            f"The channel layer {_alias()!r} has a host whose socket_timeout, as redis-py 8 sets it, ends "
            f"blocking reads of {BLOCKING_READ_TIMEOUT} s, which closes idle sockets.",
            hint='Write hosts as dicts: {"address": "redis://…", "socket_timeout": 15}.',
            id="rooms.W004",
        )


def _has_sufficient_timeout(host: Any) -> bool:
    """Accept a URL, a pair of host and port, or a dict, like channels_redis."""
    options: Mapping[str, Any] = host if isinstance(host, Mapping) else {"address": host}
    timeout = options.get("socket_timeout", 0)
    # The address takes precedence, as in redis-py.
    for value in parse_qs(urlsplit(str(options.get("address", ""))).query).get("socket_timeout", ()):
        timeout = value
    try:
        return timeout is None or float(timeout) > BLOCKING_READ_TIMEOUT
    except ValueError:
        return False


CHECKS: Sequence[Callable[[], Iterator[CheckMessage]]] = (
    channel_layer,  # E002
    layer_without_postgresql,  # E006
    memory_in_production,  # W001
    small_capacity,  # W002
    short_timeouts,  # W004
)
