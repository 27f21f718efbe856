"""Where a room's messages are kept, and the numbers that put them in order."""

from __future__ import annotations

from rooms.histories.base import Appended, History, Page, Snapshot
from rooms.histories.shelf import PRUNE_SECONDS, Histories

__all__ = ["PRUNE_SECONDS", "Appended", "Histories", "History", "Page", "Snapshot"]
