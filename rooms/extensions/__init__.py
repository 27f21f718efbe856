"""Extensions: code of a site that handles events of an application or a room.

A site writes them in ``<app>/extensions.py``, which is discovered like ``admin.py``. ``base.py`` has the base
class, ``contexts.py`` the arguments of its handlers, ``registry.py`` the registered classes by name,
``runner.py`` calls the handlers.
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
