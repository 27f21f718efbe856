"""Rooms: a real-time room server for Django.

The public names are imported when they are first used, because Django must be set up before::

    from rooms import Extension, Rejected, disconnect, history, members, message, publish, register
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rooms.api import adisconnect, ahistory, amembers, apublish, disconnect, history, members, publish
    from rooms.extensions import Extension, message, register
    from rooms.protocol.errors import HandshakeRejected, Rejected, UnknownConnection

__version__ = "0.1.0"

__all__ = [
    "Extension",
    "HandshakeRejected",
    "Rejected",
    "UnknownConnection",
    "adisconnect",
    "ahistory",
    "amembers",
    "apublish",
    "disconnect",
    "history",
    "members",
    "message",
    "publish",
    "register",
]

_MODULES = {
    "HandshakeRejected": "rooms.protocol.errors",
    "Rejected": "rooms.protocol.errors",
    "UnknownConnection": "rooms.protocol.errors",
    "Extension": "rooms.extensions",
    "message": "rooms.extensions",
    "register": "rooms.extensions",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rooms' has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "rooms.api")), name)
