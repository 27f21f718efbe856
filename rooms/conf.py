"""Reads ``settings.ROOMS`` and holds its defaults.

Keys of ``ROOMS`` are the names of the fields below in capitals: ``ROOMS = {"PING_INTERVAL": 30}``. An unknown
key raises ImproperlyConfigured, and is reported by a system check with every value of a wrong type
(``checks/settings.py``). What differs per application or room is a field in the admin, not a setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from typing import Any, TypedDict

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from rooms.protocol.base import Protocol


class Backend(TypedDict, total=False):
    """A backend by dotted path, as in ``CACHES``."""

    BACKEND: str
    OPTIONS: dict[str, Any]


def _histories() -> dict[str, Backend]:
    return {
        "database": {"BACKEND": "rooms.histories.database.DatabaseHistory"},
        "memory": {"BACKEND": "rooms.histories.memory.MemoryHistory"},
        "none": {"BACKEND": "rooms.histories.none.NoHistory"},
    }


#: The class of each protocol by the name that settings, addresses and applications use.
PROTOCOL_CLASSES: Mapping[str, str] = {
    "native": "rooms.protocol.native.Native",
    "roomer": "rooms.compat.roomer.Roomer",
    "rtbroadcaster": "rooms.compat.rtbroadcaster.Rtbroadcaster",
    "goroomserver": "rooms.compat.goroomserver.Goroomserver",
    "gowsev": "rooms.compat.gowsev.Gowsev",
}
PROTOCOL_NAMES = tuple(PROTOCOL_CLASSES)


def _presence() -> Backend:
    return {"BACKEND": "rooms.presence.memory.MemoryPresence"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds, sizes in bytes, rates per second."""

    # Protocols that clients may speak, of PROTOCOL_NAMES above
    protocols: Sequence[str] = ("native",)
    # Heartbeat and timeouts of a connection
    ping_interval: float = 25
    pong_timeout: float = 10
    login_timeout: float = 10
    # Clients of goroomserver connect before the user has typed a name
    goroomserver_login_timeout: float = 300
    write_timeout: float = 10
    # What a connection may send, and the bounds of its send queue
    max_frame_bytes: int = 64 * 1024
    roomer_frame_bytes: int = 1024 * 1024
    rtbroadcaster_frame_bytes: int = 64 * 1024
    goroomserver_frame_bytes: int = 64 * 1024
    gowsev_frame_bytes: int = 64 * 1024
    max_message_bytes: int = 64 * 1024
    request_rate: int = 20
    request_burst: int = 60
    max_rooms_per_connection: int = 128
    send_queue_max_bytes: int = 1024 * 1024
    send_queue_max_frames: int = 512
    # Limits of one client address
    max_connections_per_address: int = 50
    logins_per_minute: int = 60
    # Trusted proxies, each of which appends to X-Forwarded-For
    num_proxies: int = 0
    # Rooms
    history_size: int = 1000
    history_ttl: int = 7 * 24 * 3600
    # A message's key is kept as long as the message, and at least this long
    idempotency_ttl: int = 24 * 3600
    recovery_max_messages: int = 300
    max_state_keys: int = 100
    max_state_bytes: int = 16 * 1024
    join_history_limit: int = 50
    join_members_limit: int = 200
    # Above this number of members, joins and leaves are sent as one diff per second
    presence_diff_threshold: int = 200
    leave_grace: int = 15
    empty_room_ttl: int = 600
    # Logins
    guest_name_ttl: float = 15
    token_ttl: int = 14 * 24 * 3600
    # Work outside the event loop
    handler_timeout: float = 5
    thread_pool_size: int = 8
    thread_pool_queue: int = 64
    # Backends
    channel_layer: str = "default"
    histories: Mapping[str, Backend] = field(default_factory=_histories)
    presence: Backend = field(default_factory=_presence)

    def frame_bytes(self, protocol: str) -> int:
        """Return the maximum size of a frame from a client of this protocol."""
        limits: dict[str, int] = {
            "native": self.max_frame_bytes,
            "roomer": self.roomer_frame_bytes,
            "rtbroadcaster": self.rtbroadcaster_frame_bytes,
            "goroomserver": self.goroomserver_frame_bytes,
            "gowsev": self.gowsev_frame_bytes,
        }
        return limits.get(protocol, self.max_frame_bytes)


KEYS = tuple(each.name.upper() for each in fields(Settings))


def unknown_key(setting: str, key: object, expected: Sequence[str]) -> str:
    """Describe a key that a setting does not have, and the nearest that it has."""
    text = str(key)
    near = get_close_matches(text, expected, 1) or get_close_matches(text.upper(), expected, 1)
    quoted = f'"{key}"' if isinstance(key, str) else repr(key)
    advice = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(expected)}."
    return f"Unknown setting {setting}[{quoted}]; {advice}"


@cache
def get_settings() -> Settings:
    """Return the settings in force. Raises ImproperlyConfigured for an unknown key."""
    given: Any = getattr(django_settings, "ROOMS", {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"Expected a dict as the setting ROOMS, got {given!r}.")
    for key in given:
        if key not in KEYS:
            raise ImproperlyConfigured(unknown_key("ROOMS", key, KEYS))
    values = {key.lower(): value for key, value in given.items()}
    if "histories" in values:
        values["histories"] = {**_histories(), **values["histories"]}
    return Settings(**values)


def load_protocol(name: str) -> type[Protocol]:
    """Return the class of a protocol. Raises KeyError for an unknown name."""
    protocol: type[Protocol] = import_string(PROTOCOL_CLASSES[name])
    return protocol


def load_backend(backend: Backend) -> Any:
    """Instantiate the backend's class with its OPTIONS as keyword arguments."""
    return import_string(backend["BACKEND"])(**backend.get("OPTIONS", {}))


def _reset(*, setting: str, **_: object) -> None:
    if setting == "ROOMS":
        get_settings.cache_clear()


setting_changed.connect(_reset, dispatch_uid="rooms.conf")
