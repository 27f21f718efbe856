"""Checks rows against the settings, for ``check --database`` and ``migrate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError

from rooms.conf import get_settings
from rooms.models import Application, Room
from rooms.models.database import database


def check_histories(
    app_configs: object = None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Report applications and rooms whose history has no backend."""
    if database() not in (databases or ()):
        return []
    try:
        return list(_without_backend())
    except DatabaseError:
        # The tables do not exist before the first migration.
        return []
    except ImproperlyConfigured:
        # Reported by the checks of the settings.
        return []


def _without_backend() -> Iterator[CheckMessage]:
    backends = get_settings().histories
    for model in (Application, Room):
        for row in model._default_manager.exclude(history__in=["", *backends]).order_by("pk")[:10]:
            yield Error(
                f"The {row._meta.verbose_name} {row.name!r} has the history {row.history!r}, but "
                'ROOMS["HISTORIES"] has no such backend: users cannot join.',
                hint=f"Add the backend, or choose another history: {', '.join(backends)}.",
                obj=row,
                id="rooms.E007",
            )
