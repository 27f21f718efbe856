"""Small servers that do with other libraries what a room of Rooms does: the same room, the same message."""

from __future__ import annotations
