"""Histories: stores of messages, which give them their sequence numbers."""

from __future__ import annotations

from rooms.concurrency.batching import Completion, FutureCompletion, complete_alone
from rooms.histories.base import Appended, History, Page, Snapshot
from rooms.histories.handler import PRUNE_SECONDS, HistoryHandler

__all__ = [
    "PRUNE_SECONDS",
    "Appended",
    "Completion",
    "FutureCompletion",
    "History",
    "HistoryHandler",
    "Page",
    "Snapshot",
    "complete_alone",
]
