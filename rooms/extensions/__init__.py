"""Code of a site that answers events of an application or a room.

A site writes ``<app>/extensions.py``; it is found as ``admin.py`` is. ``base.py`` has the class to
derive from, ``contexts.py`` what its handlers are given, ``registry.py`` how it gets its name.
"""

from __future__ import annotations

from rooms.extensions.base import Extension, message
from rooms.extensions.contexts import (
    ConnectionEvent,
    HandshakeEvent,
    JoinEvent,
    LeaveEvent,
    MessageEvent,
    OutboundHandle,
    ReceiveEvent,
    RoomContext,
)
from rooms.extensions.registry import register

__all__ = [
    "ConnectionEvent",
    "Extension",
    "HandshakeEvent",
    "JoinEvent",
    "LeaveEvent",
    "MessageEvent",
    "OutboundHandle",
    "ReceiveEvent",
    "RoomContext",
    "message",
    "register",
]
