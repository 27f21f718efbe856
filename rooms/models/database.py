"""Names the database that the app's tables are in."""

from __future__ import annotations

from django.db import router


def database() -> str:
    """Return the alias of the database that the app writes to."""
    from rooms.models.room import Room

    return router.db_for_write(Room)
