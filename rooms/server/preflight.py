"""Whether a site is ready to be served: its database, the applications behind its addresses, its memory."""

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
    """What a site needs to be served by so many processes. Raises ValueError."""
    check_database()
    if workers > 1:
        listeners.check_sharing()
        check_shared(workers)


def check_database() -> None:
    """Whether the tables of Rooms are there. Raises ValueError; one that does not answer may do so later."""
    connection = connections[database()]
    with contextlib.suppress(DatabaseError), _closing(connection):
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes("rooms")):
            raise ValueError(
                "The database is not prepared: tables or columns of Rooms are missing. Lawful: one that "
                "python manage.py migrate has prepared."
            )


def check_shared(workers: int) -> None:
    """Whether so many processes share what they have to. Raises ValueError."""
    if memory := " and ".join(_in_memory()):
        raise ValueError(
            f"In memory: {memory}. That is for one process, and --workers is {workers}. Lawful: "
            'CHANNEL_LAYERS and ROOMS["PRESENCE"] that processes share, or --workers 1.'
        )


def warnings(addresses: Sequence[Address]) -> Iterator[str]:
    """What does not keep a site from being served, and may be a mistake."""
    try:
        with _closing(connections[database()]):
            yield from _shut(addresses)
    except DatabaseError as error:
        # Only its first line: what the database says, without the address and its password.
        reason = str(error).partition("\n")[0]
        yield f"The database does not answer: {reason}. It is asked again when it is needed."
    if memory := " and ".join(_in_memory()):
        yield (
            f"In memory: {memory}. That is for one process: a second one beside it does not know who is in "
            "these rooms."
        )


def _shut(addresses: Sequence[Address]) -> Iterator[str]:
    """Addresses at which nobody is let in."""
    rows = {row.name: row for row in Application.objects.using(database())}
    for address in addresses:
        name, protocol = address.application, address.protocol
        if name is None or protocol is None:
            continue
        if name not in rows:
            yield f"{address} leads into the application {name}, which is not there. Make it in the admin."
        elif not rows[name].allows_protocol(protocol):
            yield f"{address} leads into the application {name}, which does not let in {protocol} clients."


def _in_memory() -> Iterator[str]:
    settings = get_settings()
    presence: type[Presence] = import_string(settings.presence["BACKEND"])
    if not presence.shared:
        yield "presence"
    layer = django_settings.CHANNEL_LAYERS.get(settings.channel_layer, {})
    if layer.get("BACKEND") == IN_MEMORY_LAYER:
        yield "the channel layer"


@contextlib.contextmanager
def _closing(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Whoever serves asks from threads of their own: this one needs no connection for so long."""
    try:
        yield
    finally:
        if not connection.in_atomic_block:
            connection.close()
