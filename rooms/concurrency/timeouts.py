"""Timeouts of database statements.

A locked or overloaded database does not block threads for long. The limits apply inside ``with`` only: the
site's own queries keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, transaction

from rooms.models.database import database

STATEMENT_SECONDS = 5
# Callers wait for a thread no longer than this, however many statements it runs.
STATEMENT_TIMEOUT = 6.0

# The last limit frees the lock of a room when the process that holds it is frozen.
_POSTGRESQL = ";".join(
    f"SET LOCAL {limit} = '{STATEMENT_SECONDS}s'"
    for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
)
_SQLITE = f"PRAGMA busy_timeout = {STATEMENT_SECONDS * 1000}"


@contextmanager
def bounded_transaction() -> Iterator[None]:
    """Open a transaction in which slow statements raise OperationalError."""
    connection = connections[database()]
    if connection.vendor == "sqlite":
        _execute(_SQLITE)
    with transaction.atomic(using=database()):
        if connection.vendor == "postgresql":
            # Not for the whole session: a pooler may give it to another client next.
            _execute(_POSTGRESQL)
        yield


@contextmanager
def bounded_reading() -> Iterator[None]:
    """Bound statements as ``bounded_transaction`` does, for reading."""
    if connections[database()].vendor == "sqlite":
        # No transaction: it might begin as a writer's, and wait for others.
        _execute(_SQLITE)
        yield
    else:
        with bounded_transaction():
            yield


def _execute(statement: str) -> None:
    with connections[database()].cursor() as cursor:
        cursor.execute(statement)
