"""What ``DatabasePresence`` reads in its tables, whose turn it is, and the locks; all of it runs in threads.

Whoever changes a group (``changes.py``) holds the lock of its row; on SQLite, which has one writer, the
transaction is the lock. Times are the database's own, so that the processes' clocks do not matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from django.db.models import Count, Q
from django.db.models.functions import Now

from rooms.concurrency.timeouts import bounded_transaction
from rooms.models import PresenceGroup, PresentUser
from rooms.presence.base import MemberPage, places_of
from rooms.protocol import validators
from rooms.protocol.types import User

# Databases limit how many values a query holds.
CHUNK = 400


def members(group: str, after: str | None, limit: int | None) -> MemberPage:
    users = PresentUser.objects.filter(group=group)
    rest = users.order_by("place")
    if after is not None:
        rest = rest.filter(place__gte=places_of(after)[1].encode())
    found = [user_of(row) for row in (rest if limit is None else rest[: limit + 1])]
    chosen = found if limit is None else found[:limit]
    more = len(chosen) < len(found)
    # A list that is whole is counted itself: asked once more, the number might be another by now.
    count = users.count() if more or after is not None else len(chosen)
    return MemberPage(users=chosen, count=count, more=more)


def counts(groups: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for begin in range(0, len(groups), CHUNK):
        users = PresentUser.objects.filter(group__in=groups[begin : begin + CHUNK])
        found.update(users.values_list("group").annotate(Count("pk")))
    return found


def find(group: str, user_names: Sequence[str]) -> dict[str, User]:
    found: dict[str, User] = {}
    for begin in range(0, len(user_names), CHUNK):
        some = user_names[begin : begin + CHUNK]
        # Of several the first in order, as ever.
        known = {validators.user_key(row.name): user_of(row) for row in reversed(holders(group, some))}
        for name in some:
            if holder := known.get(validators.user_key(name)):
                found[name] = holder
    return found


# What all of them use -------------------------------------------------------------------------------


@contextmanager
def locked(*groups: str) -> Iterator[dict[str, bool]]:
    """A transaction that holds the locks of these groups, and which of them are closed."""
    with bounded_transaction():
        closed = Q(closed_until__gte=Now())
        # All in the same order, so that nobody waits for one who waits for them.
        rows = PresenceGroup.objects.select_for_update().filter(pk__in=groups).order_by("pk")
        while True:
            found = dict(rows.values_list("pk").annotate(closed=closed))
            # Another process may delete the row of an empty group between the two.
            missing = [PresenceGroup(name=name) for name in groups if name not in found]
            if not missing:
                break
            PresenceGroup.objects.bulk_create(missing, ignore_conflicts=True)
        yield {name: bool(is_closed) for name, is_closed in found.items()}


def holders(group: str, user_names: Collection[str]) -> list[PresentUser]:
    """Who has one of these names, in whatever case; in the order of members. At most ``CHUNK`` names."""
    # One look into the index for each name: of conditions joined by OR databases try each on every row.
    look = f'SELECT * FROM {PresentUser._meta.db_table} WHERE "group" = %s AND place >= %s AND place < %s'
    values: list[str | bytes] = []
    for name in user_names:
        values += [group, *(place.encode() for place in places_of(name))]
    found = PresentUser.objects.raw(" UNION ALL ".join([look] * len(user_names)), values)
    return sorted(found, key=lambda row: bytes(row.place))


def user_of(row: PresentUser) -> User:
    """The user whom a row is about."""
    return User(name=row.name, id=row.user_id, guest=row.guest)
