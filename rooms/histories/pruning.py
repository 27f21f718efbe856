"""Deletes expired messages from the database, in small steps.

Readers never get messages beyond a room's retention, so this only frees space and may be late: a message
stays until its key expires. Rooms are pruned one after the other; no transaction reads more than a few
messages, so writers do not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from rooms import models
from rooms.concurrency.timeouts import bounded_reading, bounded_transaction
from rooms.conf import get_settings
from rooms.models.database import database

# A step reads this number of a room's oldest messages, and as many without a key.
CHUNK = 500
# The number of rooms that are read in a transaction; each takes up to 10 ms.
ROOMS_AT_ONCE = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The retention of a room.

    It stores ``count`` messages up to number ``newest``, none older than ``seconds``.
    """

    room: int
    newest: int
    count: int
    seconds: int

    def expired(self) -> QuerySet[models.Message]:
        """Select the room's messages that are expired with their keys."""
        now = timezone.now()
        oldest, oldest_key = (
            now - timedelta(seconds=seconds) for seconds in (self.seconds, get_settings().idempotency_ttl)
        )
        return self._messages().filter(
            Q(seq__lte=self.newest - self.count) | Q(time__lt=oldest),
            Q(key=None) | Q(time__lt=oldest_key),
        )

    def some_expired(self) -> set[int]:
        """Return the ids of some expired messages: at least CHUNK, if there are as many."""
        chosen: set[int] = set()
        # Messages without a key have their own index, and expire before those that stay for their key.
        for these in (self._messages().filter(key=None), self._messages()):
            numbers = these.order_by("seq").values_list("seq", flat=True)
            # A separate query: as a subquery, PostgreSQL would read the whole table.
            last = next(iter(numbers[CHUNK - 1 : CHUNK]), self.newest)
            # In the order of the numbers: SQLite would scan the whole room in the order of the ids.
            found = (these & self.expired()).filter(seq__lte=last).order_by("seq")
            chosen.update(found.values_list("id", flat=True))
        return chosen

    def delete_some(self) -> int:
        """Delete some expired messages, in a transaction, and return their number."""
        chosen = self.some_expired()
        return models.Message.objects.using(database()).filter(id__in=chosen).delete()[0] if chosen else 0

    def _messages(self) -> QuerySet[models.Message]:
        return models.Message.objects.using(database()).filter(room_id=self.room)


def some_rooms(after: int) -> list[Retention]:
    """Return the next ROOMS_AT_ONCE rooms with messages, with ids above ``after``."""
    settings = get_settings()
    rooms = models.Sequence.objects.using(database()).filter(seq__gt=0, room_id__gt=after)
    rows = rooms.order_by("room_id").values_list(
        "room_id",
        "seq",
        Coalesce(F("room__history_size"), F("room__application__history_size"), Value(settings.history_size)),
        Coalesce(
            F("room__history_ttl"),
            F("room__application__history_ttl"),
            Value(settings.history_ttl),
        ),
    )
    with bounded_reading(database()):
        return [
            Retention(room=room, newest=newest, count=count, seconds=seconds)
            for room, newest, count, seconds in rows[:ROOMS_AT_ONCE]
        ]


def with_expired(rooms: Sequence[Retention]) -> list[Retention]:
    """Return the rooms that have messages to delete."""
    with bounded_reading(database()):
        return [each for each in rooms if each.some_expired()]


def count(retention: Retention) -> int:
    """Count the messages of a room that are to be deleted."""
    with bounded_reading(database()):
        return retention.expired().count()


def prune(retention: Retention) -> int:
    """Delete some expired messages in a transaction, and return their number."""
    with bounded_transaction(database()):
        return retention.delete_some()
