"""Wire formats: one file each, no IO, no Django."""

from __future__ import annotations

from rooms.protocols.base import Protocol, error_answer
from rooms.protocols.native import Native

__all__ = ["Native", "Protocol", "error_answer"]
