"""What ``DatabasePresence`` does to its tables; all of it runs in threads.

Whoever changes a group holds the lock of its row; on SQLite, which has one writer, the transaction is
the lock. Times are the database's own, so that the processes' clocks do not matter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

from django.db import OperationalError
from django.db.models import Count, Exists, OuterRef, Q
from django.db.models.functions import Now

from rooms import names
from rooms.bounds import bounded_transaction
from rooms.events import User
from rooms.models import PresenceGroup, PresenceNode, PresenceTurn, PresentConnection, PresentUser
from rooms.presence.base import (
    LEASE_SECONDS,
    TURN_SECONDS,
    Departure,
    GroupClosed,
    GroupFull,
    MemberPage,
    NameInUse,
    place_of,
    places_of,
)

logger = logging.getLogger("rooms.presence")

# Whoever sweeps has so long for it; if that process dies as well, another goes on.
SWEEP_SECONDS = 10
# Databases limit how many values a query holds.
CHUNK = 400


class GivenUp(Exception):
    """Nobody waits for the change any more, so it is not made."""


class Asked:
    """A change that somebody waits for. One that was ``given_up`` must not be made late, when the contrary
    may have been asked since: that is checked last, under the lock for which the contrary waits."""

    given_up = False

    def check(self) -> None:
        """Raises GivenUp."""
        if self.given_up:
            raise GivenUp


def add(
    asked: Asked,
    node: str,
    group: str,
    connection: str,
    user: User,
    *,
    limit: int | None = None,
    unique: bool = False,
) -> bool:
    with _group(group) as closed:
        if closed:
            raise GroupClosed
        users = PresentUser.objects.filter(group=group)
        first = not users.filter(user_id=user.id).exists()
        if first:
            if unique and users.filter(_called(user.name)).exists():
                raise NameInUse
            if limit is not None and users.count() >= limit:
                raise GroupFull
            place = place_of(user).encode()
            users.create(group=group, user_id=user.id, name=user.name, guest=user.guest, place=place)
        else:
            own = PresentConnection.objects.filter(group=group, user_id=user.id)
            own.filter(Q(fading=True) | Q(connection=connection)).delete()
        PresentConnection.objects.create(group=group, user_id=user.id, connection=connection, node=node)
        asked.check()
    return first


def fade(group: str, connection: str, user: User) -> None:
    with bounded_transaction():
        of_user = PresentConnection.objects.filter(group=group, user_id=user.id)
        of_user.filter(connection=connection).update(fading=True)


def remove(
    asked: Asked, group: str, connections: Mapping[str, User], untold: set[tuple[str, str]]
) -> list[User]:
    """As ``Presence.remove_all``. Groups and ids of users who are out are noted in ``untold``: who is there
    already was taken out by one that was given up too late, and is out if not come back since."""
    out: list[User] = []
    every = list(connections)
    for begin in range(0, len(every), CHUNK):
        chunk = every[begin : begin + CHUNK]
        with _group(group):
            rows = PresentConnection.objects.filter(group=group, connection__in=chunk)
            found = {
                pk: user
                for pk, connection, user in rows.values_list("pk", "connection", "user_id")
                if connections[connection].id == user
            }
            gone = _take_out(group, found)
            before = {id for each in chunk if (group, id := connections[each].id) in untold} - gone
            if before:
                users = PresentUser.objects.filter(group=group, user_id__in=before)
                gone |= before.difference(users.values_list("user_id", flat=True))
            asked.check()
            untold.update((group, id) for id in gone)
        out += {user.id: user for user in connections.values() if user.id in gone}.values()
    return out


def _take_out(group: str, rows: Mapping[int, str]) -> set[str]:
    """Delete these rows of connections, each with its user's id; the ids of users who are out with them."""
    PresentConnection.objects.filter(pk__in=rows).delete()
    left = PresentConnection.objects.filter(group=group, user_id__in=set(rows.values()))
    gone = set(rows.values()) - set(left.values_list("user_id", flat=True))
    if gone:
        PresentUser.objects.filter(group=group, user_id__in=gone).delete()
    return gone


def members(group: str, after: str | None, limit: int | None) -> MemberPage:
    users = PresentUser.objects.filter(group=group)
    rest = users.order_by("place")
    if after is not None:
        rest = rest.filter(place__gte=places_of(after)[1].encode())
    found = [_user(row) for row in (rest if limit is None else rest[: limit + 1])]
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
        wanted = Q()
        for name in user_names[begin : begin + CHUNK]:
            wanted |= _called(name)
        rows = PresentUser.objects.filter(wanted, group=group).order_by("-place")
        # Of several the first in order, as ever.
        holders = {names.user_key(row.name): _user(row) for row in rows}
        for name in user_names[begin : begin + CHUNK]:
            if holder := holders.get(names.user_key(name)):
                found[name] = holder
    return found


def close_group(asked: Asked, group: str) -> bool:
    with _group(group):
        if PresentUser.objects.filter(group=group).exists():
            return False
        closed_until = Now() + timedelta(seconds=LEASE_SECONDS)
        PresenceGroup.objects.filter(pk=group).update(closed_until=closed_until)
        asked.check()
    return True


# Leases --------------------------------------------------------------------------------------------


def renew(node: str) -> Literal["kept", "begun", "swept"]:
    """Renew the process's lease. ``begun``: it had none; ``swept``: it was taken for dead, and has to wait
    until everything that it said is gone."""
    lease = Now() + timedelta(seconds=LEASE_SECONDS)
    with bounded_transaction():
        if PresenceNode.objects.filter(pk=node, swept=False).update(lease=lease):
            return "kept"
        PresenceNode.objects.bulk_create([PresenceNode(pk=node, lease=lease)], ignore_conflicts=True)
        swept = PresenceNode.objects.filter(pk=node, swept=True).exists()
        return "swept" if swept else "begun"


def bury(node: str, seconds: float) -> None:
    end = Now() + timedelta(seconds=seconds)
    with bounded_transaction():
        PresenceNode.objects.filter(pk=node, lease__gt=end).update(lease=end)


def sweep(found: Callable[[Departure], None]) -> None:
    """Take out whom processes left behind whose lease is over. Each is ``found`` when that is committed."""
    over = PresenceNode.objects.filter(lease__lt=Now())
    for node in list(over.values_list("pk", flat=True)):
        with bounded_transaction():
            mine = over.filter(pk=node).update(swept=True, lease=Now() + timedelta(seconds=SWEEP_SECONDS))
        if not mine:
            continue
        try:
            _sweep_node(node, found)
        except OperationalError as error:
            # Somebody holds one of its groups for too long; the other nodes need not wait for that.
            logger.warning("The process %s is swept later: %s", node, error)


def _sweep_node(node: str, found: Callable[[Departure], None]) -> None:
    rows = PresentConnection.objects.filter(node=node)
    for group in list(rows.values_list("group", flat=True).distinct()):
        for departure in _sweep_group(node, group):
            found(departure)
    with bounded_transaction():
        PresenceNode.objects.filter(pk=node, swept=True).delete()


def _sweep_group(node: str, group: str) -> list[Departure]:
    departures: list[Departure] = []
    while True:
        with _group(group):
            if not PresenceNode.objects.filter(pk=node, swept=True).exists():
                # Another went on with it to its end, and the process says everything again.
                return departures
            rows = PresentConnection.objects.filter(node=node, group=group)
            found = dict(rows.values_list("pk", "user_id")[:CHUNK])
            users = PresentUser.objects.filter(group=group, user_id__in=set(found.values()))
            known = {row.user_id: _user(row) for row in users}
            gone = _take_out(group, found)
        departures += [Departure(group, known[id]) for id in gone if id in known]
        if len(found) < CHUNK:
            return departures


def tidy() -> None:
    """Delete what nobody needs any more, and have those swept who said something without a lease."""
    inside = PresentUser.objects.filter(group=OuterRef("name"))
    open_ = Q(closed_until__isnull=True) | Q(closed_until__lt=Now())
    leases = PresenceNode.objects.filter(pk=OuterRef("node"))
    stray = PresentConnection.objects.filter(~Exists(leases)).values_list("node", flat=True).distinct()
    with bounded_transaction():
        PresenceGroup.objects.filter(open_, ~Exists(inside)).delete()
        PresenceTurn.objects.filter(until__lt=Now()).delete()
        nodes = [PresenceNode(pk=node, lease=Now() - timedelta(seconds=1)) for node in stray]
        PresenceNode.objects.bulk_create(nodes, ignore_conflicts=True)


# Turns ---------------------------------------------------------------------------------------------


def take_turn(asked: Asked, group: str, user: User, token: str) -> bool:
    turns = PresenceTurn.objects.filter(group=group, user_id=user.id)
    if turns.filter(until__gte=Now()).exclude(token=token).exists():
        return False
    until = Now() + timedelta(seconds=TURN_SECONDS)
    mine = PresenceTurn(group=group, user_id=user.id, token=token, until=until)
    with bounded_transaction():
        turns.filter(Q(until__lt=Now()) | Q(token=token)).delete()
        PresenceTurn.objects.bulk_create([mine], ignore_conflicts=True)
        asked.check()
        return turns.filter(token=token).exists()


def end_turn(group: str, user: User, token: str) -> None:
    with bounded_transaction():
        PresenceTurn.objects.filter(group=group, user_id=user.id, token=token).delete()


# What all of them use -------------------------------------------------------------------------------


@contextmanager
def _group(name: str) -> Iterator[bool]:
    """A transaction that holds the group's lock; whether the group is closed."""
    with bounded_transaction():
        closed = Q(closed_until__gte=Now())
        locked = PresenceGroup.objects.select_for_update().filter(pk=name)
        while True:
            # Another process may delete the row of an empty group between the two.
            if row := locked.values_list("closed_until").annotate(closed=closed).first():
                break
            PresenceGroup.objects.bulk_create([PresenceGroup(name=name)], ignore_conflicts=True)
        yield bool(row[1])


def _called(name: str) -> Q:
    """Who has this name, in whatever case."""
    first, beyond = places_of(name)
    return Q(place__gte=first.encode(), place__lt=beyond.encode())


def _user(row: PresentUser) -> User:
    return User(name=row.name, id=row.user_id, guest=row.guest)
