"""Records of applications and rooms made by hand, for tests that need no database."""

from __future__ import annotations

from typing import Any

from rooms.catalogue import ApplicationRecord, RoomRecord


def application_record(**changes: Any) -> ApplicationRecord:
    """An application that allows everything but rooms on demand, with these fields instead."""
    fields: dict[str, Any] = {
        "id": 1,
        "name": "chat",
        "title": "",
        "enabled": True,
        "doors": (),
        "entry": "anyone",
        "group": None,
        "rooms_on_demand": False,
        "rooms_stay": False,
        "max_users": None,
        "max_rooms": None,
        "max_connections_per_address": 0,
        "logins_per_minute": 0,
        "max_message_bytes": 65536,
        "request_rate": 0,
        "request_burst": 0,
        "history": "memory",
        "history_count": 1000,
        "history_seconds": 3600,
        "grace_seconds": 15,
        "extension": "",
        "extension_settings": {},
        "bans": (),
        "mutes": (),
    }
    return ApplicationRecord(**{**fields, **changes})


def room_record(**changes: Any) -> RoomRecord:
    """An open room that belongs to nobody, with these fields instead."""
    fields: dict[str, Any] = {
        "id": 1,
        "application": application_record(),
        "name": "lobby",
        "title": "",
        "mode": "open",
        "owner_id": "",
        "owner_name": "",
        "owner_guest": False,
        "max_members": None,
        "password": "",
        "listed": True,
        "persistent": True,
        "closes_with_owner": False,
        "history": "memory",
        "history_count": 1000,
        "history_seconds": 3600,
        "grace_seconds": 15,
        "request_rate": None,
        "request_burst": 60,
        "extension": "",
        "extension_settings": {},
        "bans": (),
        "mutes": (),
    }
    return RoomRecord(**{**fields, **changes})
