"""A check of rows against the settings, for ``manage.py check --database default`` and ``migrate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error
from django.db import DatabaseError

from rooms.conf import get_settings
from rooms.models import Application, Room
from rooms.models.database import database


def check_histories(
    app_configs: object = None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Every history that an application or a room has chosen must have a backend."""
    if database() not in (databases or ()):
        return []
    try:
        return list(_without_backend())
    except DatabaseError:
        # The tables are not there yet.
        return []


def _without_backend() -> Iterator[CheckMessage]:
    lawful = get_settings().histories
    for model in (Application, Room):
        for row in model._default_manager.exclude(history__in=["", *lawful]).order_by("pk")[:10]:
            yield Error(
                f"{row._meta.verbose_name} {row.name!r} keeps its history in {row.history!r}, for which "
                'ROOMS["HISTORIES"] has no backend: nobody can enter.',
                hint=f"Configure it, or choose another. Lawful: {', '.join(lawful)}.",
                obj=row,
                id="rooms.E007",
            )
