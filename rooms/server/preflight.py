"""Checks a site before it is served: database, applications, backends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from django.conf import settings as django_settings
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.utils.module_loading import import_string

from rooms.checks.channel_layers import IN_MEMORY_LAYER
from rooms.conf import get_settings
from rooms.models import Application
from rooms.models.database import database
from rooms.presence.base import Presence
from rooms.server import listeners
from rooms.server.addresses import Address


def check(workers: int) -> None:
    """Check that this number of processes can serve the site. Raises ValueError."""
    check_database()
    if workers > 1:
        listeners.check_port_sharing()
        check_shared_backends(workers)


def check_database() -> None:
    """Check that the tables of Rooms exist. Raises ValueError.

    A database that is down is no error: it may come up later.
    """
    connection = connections[database()]
    with contextlib.suppress(DatabaseError), _closing(connection):
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes("rooms")):
            raise ValueError(
                "Expected a migrated database, got one without some tables or columns of Rooms. Run python "
                "manage.py migrate."
            )


def check_shared_backends(workers: int) -> None:
    """Check that this number of processes share their backends. Raises ValueError."""
    if in_memory := " and ".join(_in_memory_backends()):
        raise ValueError(
            f"Expected backends that processes share with --workers {workers}, got {in_memory} in memory. "
            'Configure CHANNEL_LAYERS and ROOMS["PRESENCE"], or use --workers 1.'
        )


def warnings(addresses: Sequence[Address]) -> Iterator[str]:
    """Report what does not prevent serving but may be a mistake."""
    try:
        with _closing(connections[database()]):
            yield from _unusable(addresses)
    except DatabaseError as error:
        # Only the first line: the others may hold the address with its password.
        reason = str(error).partition("\n")[0]
        yield f"The database does not answer: {reason}. It is tried again on each use."
    if in_memory := " and ".join(_in_memory_backends()):
        yield (
            f"In memory: {in_memory}. This works for one process only: a second process would not see the "
            "members and messages of the first."
        )


def _unusable(addresses: Sequence[Address]) -> Iterator[str]:
    """Report addresses that accept no client."""
    rows = {row.name: row for row in Application.objects.using(database())}
    for address in addresses:
        name, protocol = address.application, address.protocol
        if name is None or protocol is None:
            continue
        if name not in rows:
            yield f"{address} serves the application {name}, which does not exist. Create it in the admin."
        elif not rows[name].allows_protocol(protocol):
            yield f"{address} serves the application {name}, which does not allow {protocol} clients."


def _in_memory_backends() -> Iterator[str]:
    settings = get_settings()
    presence: type[Presence] = import_string(settings.presence["BACKEND"])
    if not presence.shared:
        yield "presence"
    layer = django_settings.CHANNEL_LAYERS.get(settings.channel_layer, {})
    if layer.get("BACKEND") == IN_MEMORY_LAYER:
        yield "the channel layer"


@contextlib.contextmanager
def _closing(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Close the connection at the end: while serving, queries run in other threads."""
    try:
        yield
    finally:
        if not connection.in_atomic_block:
            connection.close()
