"""Who is where: users, not connections, and for how long they may be away before they count as gone."""

from __future__ import annotations

from rooms.presence.base import Arrival, Departure, MemberPage, Presence

__all__ = ["Arrival", "Departure", "MemberPage", "Presence"]
