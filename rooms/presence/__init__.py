"""Presence: which users are in which groups, across all processes."""

from __future__ import annotations

from rooms.presence.base import Arrival, Departure, MemberPage, Presence

__all__ = ["Arrival", "Departure", "MemberPage", "Presence"]
