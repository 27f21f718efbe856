"""``settings.ROOMS``, read once, with its defaults on one screen.

Keys of ``ROOMS`` are the names of the fields below in capitals: ``ROOMS = {"PING_INTERVAL": 30}``.
An unknown key or a value of the wrong type is reported by a system check (``checks/settings.py``) that names
the nearest lawful key. What differs per application or room is a row in the admin, not a setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypedDict

from django.conf import settings as django_settings
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

    # Protocols that are let in, of PROTOCOL_NAMES above
    protocols: Sequence[str] = ("native",)
    # Heartbeat and deadlines of a connection
    ping_interval: float = 25
    pong_timeout: float = 10
    login_timeout: float = 10
    # Of goroomserver's sockets, which are in no application before somebody has typed a name
    goroomserver_login_timeout: float = 300
    write_timeout: float = 10
    # What a connection may send, and how much may wait for it
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
    # What an address may do
    max_connections_per_address: int = 50
    logins_per_minute: int = 60
    # Trusted proxies in front, each of which adds to X-Forwarded-For
    num_proxies: int = 0
    # Rooms
    history_size: int = 1000
    history_ttl: int = 7 * 24 * 3600
    # A message's key is remembered as long as the message is kept, and at least so long
    idempotency_ttl: int = 24 * 3600
    recovery_max_messages: int = 300
    max_state_keys: int = 100
    max_state_bytes: int = 16 * 1024
    join_history_limit: int = 50
    join_members_limit: int = 200
    # In a room with more than so many members they are told once a second who came and went
    presence_diff_threshold: int = 200
    leave_grace: int = 15
    empty_room_ttl: int = 600
    # Authenticator
    guest_name_ttl: float = 15
    token_ttl: int = 14 * 24 * 3600
    # Work outside the event loop
    handler_timeout: float = 5
    threads: int = 8
    thread_pool_queue: int = 64
    # Parts by dotted path
    channel_layer: str = "default"
    histories: Mapping[str, Backend] = field(default_factory=_histories)
    presence: Backend = field(default_factory=_presence)

    def frame_bytes(self, protocol: str) -> int:
        """The largest frame that is taken from a client of this protocol."""
        limits: dict[str, int] = {
            "native": self.max_frame_bytes,
            "roomer": self.roomer_frame_bytes,
            "rtbroadcaster": self.rtbroadcaster_frame_bytes,
            "goroomserver": self.goroomserver_frame_bytes,
            "gowsev": self.gowsev_frame_bytes,
        }
        return limits.get(protocol, self.max_frame_bytes)


KEYS = tuple(each.name.upper() for each in fields(Settings))


@cache
def get_settings() -> Settings:
    """The settings in force. Unknown keys are left to the system check."""
    given: Mapping[str, Any] = getattr(django_settings, "ROOMS", {})
    values = {key.lower(): value for key, value in given.items() if key in KEYS}
    if "histories" in values:
        values["histories"] = {**_histories(), **values["histories"]}
    return Settings(**values)


def load_protocol(name: str) -> type[Protocol]:
    """Return the class of a protocol. Raises KeyError for a name that is not in PROTOCOL_CLASSES."""
    protocol: type[Protocol] = import_string(PROTOCOL_CLASSES[name])
    return protocol


def load_backend(backend: Backend) -> Any:
    """An instance of the backend's class, made with its OPTIONS as keyword arguments."""
    return import_string(backend["BACKEND"])(**backend.get("OPTIONS", {}))


def _reset(*, setting: str, **_: object) -> None:
    if setting == "ROOMS":
        get_settings.cache_clear()


setting_changed.connect(_reset, dispatch_uid="rooms.conf")
