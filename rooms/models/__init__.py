"""Applications, rooms, stored messages, restrictions, presence in the database.

A blank field of a room inherits from its application, a blank limit of an application from
``settings.ROOMS``. ``node/config.py`` resolves both into plain values for the node; no model is read
while a message is published.
"""

from __future__ import annotations

from rooms.models.application import Application
from rooms.models.common import HistoryPolicy
from rooms.models.message import Message, Sequence, StateMessage
from rooms.models.presence import PresenceGroup, PresenceNode, PresentConnection, PresentUser
from rooms.models.restriction import Ban, Mute, Restriction, RevokedToken
from rooms.models.room import Room

__all__ = [
    "Application",
    "Ban",
    "HistoryPolicy",
    "Message",
    "Mute",
    "PresenceGroup",
    "PresenceNode",
    "PresentConnection",
    "PresentUser",
    "Restriction",
    "RevokedToken",
    "Room",
    "Sequence",
    "StateMessage",
]
