"""Who is where: users, not connections, and for how long they may be away before they count as gone."""

from __future__ import annotations

from rooms.presence.base import Departure, MemberPage, Presence

__all__ = ["Departure", "MemberPage", "Presence"]
