"""How long a statement may keep one of our threads waiting for a database that is locked or overloaded.

Whoever waits is told to come again, instead of piling up. Only for what happens inside ``with``: the site's
own queries are none of our business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, transaction

from rooms.models.database import database

STATEMENT_SECONDS = 5
# A thread that waits for one statement after another is not waited for itself.
STATEMENT_TIMEOUT = 6.0

# The last one frees a room's lock when the process that holds it was frozen in the middle.
_POSTGRESQL = ";".join(
    f"SET LOCAL {limit} = '{STATEMENT_SECONDS}s'"
    for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
)
_SQLITE = f"PRAGMA busy_timeout = {STATEMENT_SECONDS * 1000}"


@contextmanager
def bounded_transaction() -> Iterator[None]:
    """A transaction whose statements raise OperationalError when they take too long."""
    connection = connections[database()]
    if connection.vendor == "sqlite":
        _execute(_SQLITE)
    with transaction.atomic(using=database()):
        if connection.vendor == "postgresql":
            # Not for the whole session, which may be another's next when a pooler stands between.
            _execute(_POSTGRESQL)
        yield


@contextmanager
def bounded_reading() -> Iterator[None]:
    """As ``bounded_transaction``, for reading."""
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
