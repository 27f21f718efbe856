"""The timeouts of statements, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from rooms.concurrency.timeouts import STATEMENT_SECONDS, bounded_reading, bounded_transaction
from rooms.models import PresenceNode
from rooms.models.database import database

pytestmark = pytest.mark.django_db(transaction=True)

on_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="a limit of SQLite")
on_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="limits of PostgreSQL")


def shown(statement: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def test_a_bounded_transaction_is_rolled_back_on_an_error() -> None:
    def fail() -> None:
        with bounded_transaction(database()):
            PresenceNode.objects.create(pk="node", lease=timezone.now())
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert not PresenceNode.objects.exists()


@on_sqlite
def test_sqlite_waits_for_a_lock_no_longer_than_the_limit() -> None:
    for bounded in (bounded_transaction, bounded_reading):
        with bounded(database()):
            assert shown("PRAGMA busy_timeout") == STATEMENT_SECONDS * 1000


@on_sqlite
def test_a_bounded_reading_on_sqlite_opens_no_transaction() -> None:
    with bounded_reading(database()):
        assert not connection.in_atomic_block


@on_postgresql
@pytest.mark.parametrize(
    "limit", ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
)
def test_postgresql_has_the_limits_inside_the_transaction_only(limit: str) -> None:
    before = shown(f"SHOW {limit}")
    for bounded in (bounded_transaction, bounded_reading):
        with bounded(database()):
            assert shown(f"SHOW {limit}") == f"{STATEMENT_SECONDS}s"
        assert shown(f"SHOW {limit}") == before


@on_postgresql
def test_a_slow_statement_on_postgresql_raises_an_operational_error() -> None:
    with bounded_transaction(database()), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '10ms'")
        with pytest.raises(OperationalError):
            cursor.execute("SELECT pg_sleep(20)")
        transaction.set_rollback(True)
