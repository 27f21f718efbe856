"""``settings.ROOMS``, read once, with its defaults on one screen.

Keys of ``ROOMS`` are the names of the fields below in capitals: ``ROOMS = {"PING_SECONDS": 30}``.
An unknown key or a value of the wrong type is reported by a system check (``checks.py``) that names
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


#: Every protocol that is spoken here, by the name that settings and applications call it.
DOORS = ("native", "roomer", "rtbroadcaster", "goroomserver", "gowsev")


def _presence() -> Backend:
    return {"BACKEND": "rooms.presence.memory.MemoryPresence"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds, sizes in bytes, rates per second."""

    # Protocols that are let in, of DOORS above
    doors: Sequence[str] = ("native",)
    # Heartbeat and deadlines of a connection
    ping_seconds: float = 25
    pong_seconds: float = 10
    login_seconds: float = 10
    # Of goroomserver's sockets, which are in no application before somebody has typed a name
    goroomserver_login_seconds: float = 300
    write_seconds: float = 10
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
    outbox_bytes: int = 1024 * 1024
    outbox_frames: int = 512
    # What an address may do
    max_connections_per_address: int = 50
    logins_per_minute: int = 60
    # Trusted proxies in front, each of which adds to X-Forwarded-For
    proxies: int = 0
    # Rooms
    history_count: int = 1000
    history_seconds: int = 7 * 24 * 3600
    # A message's key is remembered as long as the message is kept, and at least so long
    key_seconds: int = 24 * 3600
    recovery_limit: int = 300
    state_count: int = 100
    state_bytes: int = 16 * 1024
    join_limit: int = 50
    join_members: int = 200
    # In a room with more than so many members they are told once a second who came and went
    large_room_members: int = 200
    grace_seconds: int = 15
    empty_room_seconds: int = 600
    # Logins
    guest_name_seconds: float = 15
    token_seconds: int = 14 * 24 * 3600
    # Work outside the event loop
    handler_seconds: float = 5
    threads: int = 8
    thread_queue: int = 64
    # Parts by dotted path
    channel_layer: str = "default"
    history: Mapping[str, Backend] = field(default_factory=_histories)
    presence: Backend = field(default_factory=_presence)

    def frame_bytes(self, door: str) -> int:
        """The largest frame that is taken from a client of this protocol."""
        limits: dict[str, int] = {
            "native": self.max_frame_bytes,
            "roomer": self.roomer_frame_bytes,
            "rtbroadcaster": self.rtbroadcaster_frame_bytes,
            "goroomserver": self.goroomserver_frame_bytes,
            "gowsev": self.gowsev_frame_bytes,
        }
        return limits.get(door, self.max_frame_bytes)


KEYS = tuple(each.name.upper() for each in fields(Settings))


@cache
def get_settings() -> Settings:
    """The settings in force. Unknown keys are left to the system check."""
    given: Mapping[str, Any] = getattr(django_settings, "ROOMS", {})
    values = {key.lower(): value for key, value in given.items() if key in KEYS}
    if "history" in values:
        values["history"] = {**_histories(), **values["history"]}
    return Settings(**values)


def load_backend(backend: Backend) -> Any:
    """An instance of the backend's class, made with its OPTIONS as keyword arguments."""
    return import_string(backend["BACKEND"])(**backend.get("OPTIONS", {}))


def _reset(*, setting: str, **_: object) -> None:
    if setting == "ROOMS":
        get_settings.cache_clear()


setting_changed.connect(_reset, dispatch_uid="rooms.conf")
