"""Bans and mutes as plain values: who may not, until when, and why.

They are read together with the rows that they hang on (``node/config.py``); ``node/permissions.py`` decides by them.
"""

from __future__ import annotations

from typing import Any, Literal

from django.db.models import Prefetch, Q
from django.utils import timezone

from rooms.hub.config import RestrictedUser
from rooms.models import Application, Ban, Mute, Restriction, Room
from rooms.protocol import validators


def in_force(database: str, **where: None) -> list[Prefetch[Any]]:
    """What has bans and mutes of rows read along with them: a query each for any number of rows."""
    now = Q(until__isnull=True) | Q(until__gt=timezone.now())
    bans, mutes = Ban.objects.using(database), Mute.objects.using(database)
    # In an order of their own, so that what has not changed is equal.
    return [
        Prefetch("bans", bans.filter(now, **where).order_by("pk"), to_attr="bans_in_force"),
        Prefetch("mutes", mutes.filter(now, **where).order_by("pk"), to_attr="mutes_in_force"),
    ]


def restricted(row: Application | Room, kind: Literal["bans", "mutes"]) -> tuple[RestrictedUser, ...]:
    """What was read along with a row, as values."""
    rows: list[Restriction] = getattr(row, f"{kind}_in_force")
    return tuple(
        RestrictedUser(
            user="" if each.user_id is None else str(each.user_id),
            guest=validators.user_key(each.guest) if each.guest else "",
            until=each.until,
            reason=each.reason,
        )
        for each in rows
    )
