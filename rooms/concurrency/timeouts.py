"""Timeouts of database statements.

A locked or overloaded database does not block threads for long. The limits apply inside ``with`` only: the
site's own queries keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, transaction

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
def bounded_transaction(using: str) -> Iterator[None]:
    """Open a transaction of a database with bounded statements.

    Slow statements in it raise OperationalError.
    """
    connection = connections[using]
    if connection.vendor == "sqlite":
        _execute(using, _SQLITE)
    with transaction.atomic(using=using):
        if connection.vendor == "postgresql":
            # Not for the whole session: a pooler may give it to another client next.
            _execute(using, _POSTGRESQL)
        yield


@contextmanager
def bounded_reading(using: str) -> Iterator[None]:
    """Bound statements as ``bounded_transaction`` does, for reading."""
    if connections[using].vendor == "sqlite":
        # No transaction: it might begin as a writer's, and wait for others.
        _execute(using, _SQLITE)
        yield
    else:
        with bounded_transaction(using):
            yield


def _execute(using: str, statement: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(statement)
