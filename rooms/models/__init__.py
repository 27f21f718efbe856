"""What outlives a process: applications, rooms, their messages, and who may not come in. Beside it, what
processes that share nothing but the database tell each other of who is where.

A blank field of a room means "as its application says"; a blank limit of an application means "as
``settings.ROOMS`` says". ``node/config.py`` resolves these into plain values for the engine; nothing
on the way of a message reads a model.
"""

from __future__ import annotations

from rooms.models.application import Application
from rooms.models.common import HistoryPolicy
from rooms.models.message import Message, Sequence, StateMessage
from rooms.models.presence import PresenceGroup, PresenceNode, PresenceTurn, PresentConnection, PresentUser
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
    "PresenceTurn",
    "PresentConnection",
    "PresentUser",
    "Restriction",
    "RevokedToken",
    "Room",
    "Sequence",
    "StateMessage",
]
