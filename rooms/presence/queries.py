"""Queries and locks of ``DatabasePresence``; all of it runs in threads.

A change of a group (``operations.py``) holds the lock of its row; on SQLite, which has one writer, the
transaction is the lock. Times are the database's own, so that the clocks of the processes do not matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from django.db.models import Count, Q
from django.db.models.functions import Now

from rooms.concurrency.timeouts import bounded_transaction
from rooms.models import PresenceGroup, PresentUser
from rooms.models.database import database
from rooms.presence.base import MemberPage, sort_range
from rooms.protocol import validators
from rooms.protocol.types import User

# Databases limit the number of values in a query.
CHUNK = 400


def members(group: str, after: str | None, limit: int | None) -> MemberPage:
    users = PresentUser.objects.filter(group=group)
    rest = users.order_by("sort_key")
    if after is not None:
        rest = rest.filter(sort_key__gte=sort_range(after)[1].encode())
    found = [user_of(row) for row in (rest if limit is None else rest[: limit + 1])]
    chosen = found if limit is None else found[:limit]
    more = len(chosen) < len(found)
    # A complete list is counted itself: a second query might give another number.
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
        # Of several users with a name, the first in order.
        known = {validators.user_key(row.name): user_of(row) for row in reversed(named(group, some))}
        for name in some:
            if user := known.get(validators.user_key(name)):
                found[name] = user
    return found


@contextmanager
def locked(*groups: str) -> Iterator[dict[str, bool]]:
    """Lock groups in a transaction, and return which of them are closed."""
    with bounded_transaction(database()):
        closed = Q(closed_until__gte=Now())
        # Always in the same order, so that two processes never wait for each other.
        rows = PresenceGroup.objects.select_for_update().filter(pk__in=groups).order_by("pk")
        while True:
            found = dict(rows.values_list("pk").annotate(closed=closed))
            # Another process may delete the row of an empty group between the two statements.
            missing = [PresenceGroup(name=name) for name in groups if name not in found]
            if not missing:
                break
            PresenceGroup.objects.bulk_create(missing, ignore_conflicts=True)
        yield {name: bool(is_closed) for name, is_closed in found.items()}


def named(group: str, user_names: Collection[str]) -> list[PresentUser]:
    """Find users by at most CHUNK names, in any case, in the order of members."""
    # One index look-up for each name: databases test conditions that are joined by OR on every row.
    select = (
        f'SELECT * FROM {PresentUser._meta.db_table} WHERE "group" = %s AND sort_key >= %s AND sort_key < %s'
    )
    values: list[str | bytes] = []
    for name in user_names:
        values += [group, *(sort_key.encode() for sort_key in sort_range(name))]
    found = PresentUser.objects.raw(" UNION ALL ".join([select] * len(user_names)), values)
    return sorted(found, key=lambda row: bytes(row.sort_key))


def user_of(row: PresentUser) -> User:
    """Return the user of a row."""
    return User(name=row.name, id=row.user_id, guest=row.guest)
