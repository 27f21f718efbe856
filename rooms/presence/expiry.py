"""The leases of processes in the database, and what becomes of what they said when these are over; all of
it runs in threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Literal

from django.db import OperationalError
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from rooms.concurrency.timeouts import bounded_transaction
from rooms.models import PresenceGroup, PresenceNode, PresentConnection, PresentUser
from rooms.presence.base import BEAT_SECONDS, LEASE_SECONDS, Departure
from rooms.presence.queries import locked, user_of

logger = logging.getLogger("rooms.presence")

# Whoever sweeps has so long for it; if that process dies as well, another goes on.
SWEEP_SECONDS = 10
# So many connections are taken out together, of as many groups at most: others wait for these meanwhile.
CHUNK = 200


def renew(node: str) -> tuple[Literal["kept", "begun", "swept"], float | None]:
    """Renew the process's lease, and for how many seconds the old one still ran. ``begun``: it had none;
    ``swept``: it was taken for dead, and has to wait until everything that it said is gone."""
    lease = Now() + timedelta(seconds=LEASE_SECONDS)
    with bounded_transaction():
        # Where the clock was set back, that of a process that is dead would last until it is as late again.
        longest = lease + timedelta(seconds=BEAT_SECONDS)
        PresenceNode.objects.filter(lease__gt=longest).update(lease=lease)
        mine = PresenceNode.objects.select_for_update().filter(pk=node)
        found = mine.values_list("swept", "lease").annotate(now=Now()).first()
        if found is None:
            PresenceNode.objects.bulk_create([PresenceNode(pk=node, lease=lease)])
            return "begun", None
        swept, old, now = found
        if swept:
            return "swept", None
        mine.update(lease=lease)
        return "kept", (old - now).total_seconds()


def expire_node(node: str, seconds: float) -> None:
    """Have the process's lease end in so many seconds, unless it ends before."""
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
    entries = PresentConnection.objects.filter(node=node).order_by("group", "user_id")
    # It may say one thing more, until it finds out.
    while every := list(entries.values_list("pk", "group")):
        for begin in range(0, len(every), CHUNK):
            for departure in take_out(node, dict(every[begin : begin + CHUNK])):
                found(departure)
        if not PresenceNode.objects.filter(pk=node, swept=True).exists():
            return
    with bounded_transaction():
        PresenceNode.objects.filter(pk=node, swept=True).delete()


def take_out(node: str, entries: Mapping[int, str]) -> list[Departure]:
    """Delete rows of the node's connections, each with its group; who is out thereby."""
    groups = sorted(set(entries.values()))
    with locked(*groups):
        if not PresenceNode.objects.filter(pk=node, swept=True).exists():
            # Another went on with it to its end, and the process says everything again.
            return []
        rows = PresentConnection.objects.filter(pk__in=entries, node=node)
        taken = set(rows.values_list("group", "user_id"))
        rows.delete()
        of_users = Q(group__in=groups, user_id__in={user for _, user in taken})
        left = set(PresentConnection.objects.filter(of_users).values_list("group", "user_id"))
        gone = [
            row
            for row in PresentUser.objects.filter(of_users)
            if (row.group, row.user_id) in taken and (row.group, row.user_id) not in left
        ]
        PresentUser.objects.filter(pk__in=[row.pk for row in gone]).delete()
    return [Departure(row.group, user_of(row)) for row in gone]


def tidy() -> None:
    """Delete what nobody needs any more, and have those swept who said something without a lease."""
    inside = PresentUser.objects.filter(group=OuterRef("name"))
    open_ = Q(closed_until__isnull=True) | Q(closed_until__lt=Now())
    leases = PresenceNode.objects.filter(pk=OuterRef("node"))
    stray = PresentConnection.objects.filter(~Exists(leases)).values_list("node", flat=True).distinct()
    with bounded_transaction():
        PresenceGroup.objects.filter(open_, ~Exists(inside)).delete()
        nodes = [PresenceNode(pk=node, lease=Now() - timedelta(seconds=1)) for node in stray]
        PresenceNode.objects.bulk_create(nodes, ignore_conflicts=True)
