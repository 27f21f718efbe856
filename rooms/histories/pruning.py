"""Deleting what the histories in the database keep no longer, a little at a time.

Nobody is told a message beyond its room's retention, so this only frees space, and may be late: a message
stays until its key need not be remembered any more. Rooms are gone through one after the other; no
transaction looks at more than a few messages, so nobody waits for it.
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

# Of the oldest so many messages of a room, and as many without a key, some are deleted at once.
CHUNK = 500
# So many rooms are looked at in a transaction, which takes up to a hundredth of a second for each.
ROOMS_AT_ONCE = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a room keeps: the newest ``count`` up to number ``newest``, and nothing older than ``seconds``."""

    room: int
    newest: int
    count: int
    seconds: int

    def expired(self) -> QuerySet[models.Message]:
        """The room's messages that are kept no longer, and neither are their keys."""
        now = timezone.now()
        oldest, oldest_key = (
            now - timedelta(seconds=seconds) for seconds in (self.seconds, get_settings().idempotency_ttl)
        )
        return self._messages().filter(
            Q(seq__lte=self.newest - self.count) | Q(time__lt=oldest),
            Q(key=None) | Q(time__lt=oldest_key),
        )

    def some_expired(self) -> set[int]:
        """The ids of some of them: of CHUNK at least, if there are so many."""
        chosen: set[int] = set()
        # Those without a key have an index of their own, and do not wait for those that stay for their key.
        for these in (self._messages().filter(key=None), self._messages()):
            numbers = these.order_by("seq").values_list("seq", flat=True)
            # A query of its own: within the next, PostgreSQL would read the whole table all the same.
            last = next(iter(numbers[CHUNK - 1 : CHUNK]), self.newest)
            # In order of the number, or SQLite would take the whole room in the order of the ids.
            found = (these & self.expired()).filter(seq__lte=last).order_by("seq")
            chosen.update(found.values_list("id", flat=True))
        return chosen

    def delete_some(self) -> int:
        """Delete some of them; how many they were. Belongs into a transaction."""
        chosen = self.some_expired()
        return models.Message.objects.using(database()).filter(id__in=chosen).delete()[0] if chosen else 0

    def _messages(self) -> QuerySet[models.Message]:
        return models.Message.objects.using(database()).filter(room_id=self.room)


def some_rooms(after: int) -> list[Retention]:
    """The next ROOMS_AT_ONCE rooms in which something was said, with ids above ``after``."""
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
    with bounded_reading():
        return [
            Retention(room=room, newest=newest, count=count, seconds=seconds)
            for room, newest, count, seconds in rows[:ROOMS_AT_ONCE]
        ]


def with_expired(rooms: Sequence[Retention]) -> list[Retention]:
    """Those of them that have messages to delete."""
    with bounded_reading():
        return [each for each in rooms if each.some_expired()]


def count(retention: Retention) -> int:
    """How many messages of a room there are to delete."""
    with bounded_reading():
        return retention.expired().count()


def prune(retention: Retention) -> int:
    """Delete some of them in a transaction of its own; how many they were."""
    with bounded_transaction():
        return retention.delete_some()
