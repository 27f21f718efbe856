"""The Django admin: one module for each model or shared part.

Saved and deleted rows reach open connections through the models' signals (``signals.py``).
``extension_settings.py`` adds the settings form of an extension to the page of its application or room.
"""

from __future__ import annotations

from rooms.admin.applications import ApplicationAdmin
from rooms.admin.messages import MessageAdmin, StateMessageAdmin
from rooms.admin.restrictions import BanAdmin, MuteAdmin
from rooms.admin.rooms import RoomAdmin

__all__ = ["ApplicationAdmin", "BanAdmin", "MessageAdmin", "MuteAdmin", "RoomAdmin", "StateMessageAdmin"]
