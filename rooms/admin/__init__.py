"""The Django admin of rooms: stock pages, a module for each subject.

Whatever is saved or deleted here reaches open sockets by way of the models' signals
(``signals.py``). ``extended.py`` puts the settings of an extension onto the page of the
application or room that uses it.
"""

from __future__ import annotations

from rooms.admin.applications import ApplicationAdmin
from rooms.admin.messages import MessageAdmin, StateMessageAdmin
from rooms.admin.restrictions import BanAdmin, MuteAdmin
from rooms.admin.rooms import RoomAdmin

__all__ = ["ApplicationAdmin", "BanAdmin", "MessageAdmin", "MuteAdmin", "RoomAdmin", "StateMessageAdmin"]
