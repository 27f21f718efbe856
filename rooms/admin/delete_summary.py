"""The confirmation page of a deletion, with the number of related rows.

Django's own page lists every row, and a room may have thousands of messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.text import capfirst


class DeleteSummaryAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Counts the rows that are deleted with a row of this admin."""

    # Each model, and the lookup from it to the row of this admin.
    deleted_with: ClassVar[list[tuple[type[Model], str]]]

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Return the rows, row counts, forbidden models and protected rows.

        Forbidden are the models that the user may not delete. There are no protected rows.
        """
        rows: Sequence[Model] = list(objs)
        counts = {str(self.opts.verbose_name_plural): len(rows)}
        forbidden: set[str] = set()
        if not all(self.has_delete_permission(request, each) for each in rows):
            forbidden.add(str(self.opts.verbose_name))
        for model, lookup in self.deleted_with:
            count = model._default_manager.filter(**{f"{lookup}__in": rows}).count()
            if not count:
                continue
            counts[str(model._meta.verbose_name_plural)] = count
            if self.admin_site.is_registered(model) and not self.admin_site.get_model_admin(
                model
            ).has_delete_permission(request):
                forbidden.add(str(model._meta.verbose_name))
        return [f"{capfirst(self.opts.verbose_name)}: {each}" for each in rows], counts, forbidden, []
