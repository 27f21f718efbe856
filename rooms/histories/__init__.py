"""Where a room's messages are kept, and the numbers that put them in order."""

from __future__ import annotations

from rooms.histories.base import Appended, History, Page, Snapshot

__all__ = ["Appended", "History", "Page", "Snapshot"]
