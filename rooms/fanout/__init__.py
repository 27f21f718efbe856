"""The fan-out of one process: connections, groups of them, and the order of what they hear."""

from __future__ import annotations

from rooms.fanout.batch import Wire
from rooms.fanout.branch import Branch
from rooms.fanout.connection import Connection, Membership
from rooms.fanout.flusher import Flusher, Outlet
from rooms.fanout.hub import Hub
from rooms.fanout.outbox import OutboxLimits

__all__ = ["Branch", "Connection", "Flusher", "Hub", "Membership", "OutboxLimits", "Outlet", "Wire"]
