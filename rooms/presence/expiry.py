"""Leases of processes in the database, and sweeps; it runs in threads."""

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
from rooms.models.database import database
from rooms.presence.base import HEARTBEAT_SECONDS, LEASE_TTL, Departure
from rooms.presence.queries import locked, user_of

logger = logging.getLogger("rooms.presence")

# The time for a sweep; if the sweeping process dies, another one continues.
SWEEP_SECONDS = 10
# The number of connections that are removed in a transaction, which locks their groups.
CHUNK = 200


def renew(node: str) -> tuple[Literal["kept", "begun", "swept"], float | None]:
    """Renew the lease of a process; return the seconds that the old one had left.

    ``begun``: it had none; ``swept``: it had expired, and its connections have to be removed first.
    """
    lease = Now() + timedelta(seconds=LEASE_TTL)
    with bounded_transaction(database()):
        # If the clock was set back, the lease of a dead process would last too long.
        longest = lease + timedelta(seconds=HEARTBEAT_SECONDS)
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
    """Shorten the lease of a process to a number of seconds."""
    end = Now() + timedelta(seconds=seconds)
    with bounded_transaction(database()):
        PresenceNode.objects.filter(pk=node, lease__gt=end).update(lease=end)


def sweep(found: Callable[[Departure], None]) -> None:
    """Remove the connections of expired processes; report the departures.

    ``found`` is called with each departure once it is committed.
    """
    expired = PresenceNode.objects.filter(lease__lt=Now())
    for node in list(expired.values_list("pk", flat=True)):
        with bounded_transaction(database()):
            mine = expired.filter(pk=node).update(swept=True, lease=Now() + timedelta(seconds=SWEEP_SECONDS))
        if not mine:
            continue
        try:
            _sweep_node(node, found)
        except OperationalError as error:
            # One of its groups is locked for too long; the other processes are swept nevertheless.
            logger.warning("The sweep of process %s was postponed: %s", node, error)


def _sweep_node(node: str, found: Callable[[Departure], None]) -> None:
    entries = PresentConnection.objects.filter(node=node).order_by("group", "user_id")
    # The process may add connections until its next heartbeat.
    while every := list(entries.values_list("pk", "group")):
        for begin in range(0, len(every), CHUNK):
            for departure in remove_connections(node, dict(every[begin : begin + CHUNK])):
                found(departure)
        if not PresenceNode.objects.filter(pk=node, swept=True).exists():
            return
    with bounded_transaction(database()):
        PresenceNode.objects.filter(pk=node, swept=True).delete()


def remove_connections(node: str, entries: Mapping[int, str]) -> list[Departure]:
    """Delete connections of a process, each with its group; return departures."""
    groups = sorted(set(entries.values()))
    with locked(*groups):
        if not PresenceNode.objects.filter(pk=node, swept=True).exists():
            # Another process completed the sweep, and this process registers its connections again.
            return []
        rows = PresentConnection.objects.filter(pk__in=entries, node=node)
        removed = set(rows.values_list("group", "user_id"))
        rows.delete()
        of_users = Q(group__in=groups, user_id__in={user for _, user in removed})
        left = set(PresentConnection.objects.filter(of_users).values_list("group", "user_id"))
        gone = [
            row
            for row in PresentUser.objects.filter(of_users)
            if (row.group, row.user_id) in removed and (row.group, row.user_id) not in left
        ]
        PresentUser.objects.filter(pk__in=[row.pk for row in gone]).delete()
    return [Departure(row.group, user_of(row)) for row in gone]


def tidy() -> None:
    """Delete unused groups, and have connections without a lease swept."""
    inside = PresentUser.objects.filter(group=OuterRef("name"))
    open_ = Q(closed_until__isnull=True) | Q(closed_until__lt=Now())
    leases = PresenceNode.objects.filter(pk=OuterRef("node"))
    stray = PresentConnection.objects.filter(~Exists(leases)).values_list("node", flat=True).distinct()
    with bounded_transaction(database()):
        PresenceGroup.objects.filter(open_, ~Exists(inside)).delete()
        nodes = [PresenceNode(pk=node, lease=Now() - timedelta(seconds=1)) for node in stray]
        PresenceNode.objects.bulk_create(nodes, ignore_conflicts=True)
