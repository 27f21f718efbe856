"""The fan-out of one process: connections, groups of them, and the order of what they hear."""

from __future__ import annotations

from rooms.fanout.branch import Branch
from rooms.fanout.connection import Connection, Membership, OutboxLimits
from rooms.fanout.hub import Hub

__all__ = ["Branch", "Connection", "Hub", "Membership", "OutboxLimits"]
