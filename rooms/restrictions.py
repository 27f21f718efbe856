"""Bans and mutes as plain values: who may not, until when, and why.

They are read together with the rows that they hang on (``catalogue.py``); ``policy.py`` decides by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from django.db.models import Prefetch, Q
from django.utils import timezone

from rooms import names
from rooms.events import User
from rooms.models import Application, Ban, Mute, Restriction, Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Restricted:
    """Who may not: a user's id or a guest's name, until a time or for good, and why."""

    user: str
    guest: str
    until: datetime | None
    reason: str

    def concerns(self, user: User) -> bool:
        if self.until is not None and self.until <= timezone.now():
            return False
        return names.user_key(user.name) == self.guest if user.guest else user.id == self.user


def in_force(database: str, **where: None) -> list[Prefetch[Any]]:
    """What has bans and mutes of rows read along with them: a query each for any number of rows."""
    now = Q(until__isnull=True) | Q(until__gt=timezone.now())
    bans, mutes = Ban.objects.using(database), Mute.objects.using(database)
    # In an order of their own, so that what has not changed is equal.
    return [
        Prefetch("bans", bans.filter(now, **where).order_by("pk"), to_attr="bans_in_force"),
        Prefetch("mutes", mutes.filter(now, **where).order_by("pk"), to_attr="mutes_in_force"),
    ]


def restricted(row: Application | Room, kind: Literal["bans", "mutes"]) -> tuple[Restricted, ...]:
    """What was read along with a row, as values."""
    rows: list[Restriction] = getattr(row, f"{kind}_in_force")
    return tuple(
        Restricted(
            user="" if each.user_id is None else str(each.user_id),
            guest=names.user_key(each.guest) if each.guest else "",
            until=each.until,
            reason=each.reason,
        )
        for each in rows
    )
