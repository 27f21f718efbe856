"""Configs of applications and rooms for tests without a database."""

from __future__ import annotations

from typing import Any

from rooms.hub.config import ApplicationConfig, RoomConfig


def application_record(**changes: Any) -> ApplicationConfig:
    """An application without limits and rooms on demand; `changes` replace fields."""
    fields: dict[str, Any] = {
        "id": 1,
        "name": "chat",
        "title": "",
        "enabled": True,
        "protocols": (),
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
        "history_size": 1000,
        "history_ttl": 3600,
        "leave_grace": 15,
        "extension": "",
        "extension_settings": {},
        "bans": (),
        "mutes": (),
    }
    return ApplicationConfig(**{**fields, **changes})


def room_record(**changes: Any) -> RoomConfig:
    """An open room without an owner; `changes` replace fields."""
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
        "history_size": 1000,
        "history_ttl": 3600,
        "leave_grace": 15,
        "request_rate": None,
        "request_burst": 60,
        "extension": "",
        "extension_settings": {},
        "bans": (),
        "mutes": (),
    }
    return RoomConfig(**{**fields, **changes})
