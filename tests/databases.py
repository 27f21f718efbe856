"""The test database after a test that really committed: empty again.

Django's own way for that truncates every table, on PostgreSQL as many files, and then writes all content
types and permissions anew. Deleting the few rows that a test left, and leaving those two tables as they are,
takes a tenth of that.
"""

from __future__ import annotations

import functools

from django.db import connections, transaction
from django.test import TransactionTestCase

#: What migrations write for the code, whatever the tests do.
KEPT = frozenset({"auth_permission", "django_content_type"})


@functools.cache
def emptying(alias: str) -> tuple[str, ...]:
    """The statements that delete every row of the models' tables."""
    connection = connections[alias]
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    statements = [
        f"DELETE FROM {connection.ops.quote_name(table)}" for table in sorted(tables) if table not in KEPT
    ]
    # PostgreSQL takes them in one round trip.
    return ("; ".join(statements),) if connection.vendor == "postgresql" else tuple(statements)


def empty(alias: str) -> None:
    """Delete what a test has committed. Foreign keys are looked at when all of it is gone."""
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        for statement in emptying(alias):
            cursor.execute(statement)


def fixture_teardown(case: TransactionTestCase) -> None:
    """Stands in for the method of `TransactionTestCase` that flushes its databases."""
    for alias in case._databases_names(include_mirrors=False):
        empty(alias)
