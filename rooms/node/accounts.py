"""Looks up which names belong to accounts.

Guests may not use them, in any spelling. The look-ups run in threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connections, router
from django.db.models import Q

from rooms.protocol import validators


def are_registered(wanted: dict[str, str]) -> dict[str, bool]:
    """Return, for guests' names by their keys, whether an account has the name."""
    plain = [key for key in wanted if key.isascii() and "ss" not in key]
    others = list(wanted.keys() - set(plain))
    found = {validators.user_key(each) for each in (*_called(plain), *_called_like(others))}
    return {key: key in found for key in wanted}


def _called(keys: Sequence[str]) -> Iterator[str]:
    """Yield the account names that equal ``keys`` regardless of case.

    Databases know case for ASCII only. Every guest is looked up: building a query set would take
    ten times as long as the query.
    """
    if not keys:
        return
    users = get_user_model()
    field: Any = users._meta.get_field(users.USERNAME_FIELD)
    connection = connections[router.db_for_read(users)]
    quoted = connection.ops.quote_name
    column = quoted(field.column)
    # As ``iexact`` compares, for which a site may have an index; a name need not be a text.
    text = f"{column}::text" if connection.vendor == "postgresql" else column
    statement = f"SELECT {column} FROM {quoted(field.model._meta.db_table)} WHERE UPPER({text}) IN "
    with connection.cursor() as cursor:
        cursor.execute(f"{statement}({', '.join(['%s'] * len(keys))})", [key.upper() for key in keys])
        for (name,) in cursor.fetchall():
            yield name


def _called_like(keys: Sequence[str]) -> Iterator[str]:
    """Yield account names that may equal ``keys`` regardless of case.

    It is for letters whose case databases do not know. The names may be others as well.
    """
    if not keys:
        return
    users, field = get_user_model()._default_manager, get_user_model().USERNAME_FIELD
    patterns = reduce(or_, (Q(**{f"{field}__iregex": _pattern(key)}) for key in keys))
    yield from users.filter(patterns).values_list(field, flat=True)


def _pattern(key: str) -> str:
    pattern = "".join(each if each.isascii() else ".{1,2}" for each in map(re.escape, key))
    return f"^{pattern.replace('ss', '(ss|.)')}$"
