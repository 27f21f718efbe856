"""What goes with an application or a room when it is deleted, counted before somebody confirms it.

The stock page lists every single row; a room may have thousands of messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.text import capfirst


class CountedDeletion(admin.ModelAdmin):  # type: ignore[type-arg]
    """An admin whose page before a deletion counts what else would go."""

    # Each model, and the lookup from it to what is deleted.
    deleted_with: ClassVar[list[tuple[type[Model], str]]]

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """The objects, the count of each kind of row, the kinds that the user may not delete, and
        what stands in the way (nothing does)."""
        gone: Sequence[Model] = list(objs)
        counts = {str(self.opts.verbose_name_plural): len(gone)}
        forbidden: set[str] = set()
        if not all(self.has_delete_permission(request, each) for each in gone):
            forbidden.add(str(self.opts.verbose_name))
        for model, lookup in self.deleted_with:
            count = model._default_manager.filter(**{f"{lookup}__in": gone}).count()
            if not count:
                continue
            counts[str(model._meta.verbose_name_plural)] = count
            if self.admin_site.is_registered(model) and not self.admin_site.get_model_admin(
                model
            ).has_delete_permission(request):
                forbidden.add(str(model._meta.verbose_name))
        return [f"{capfirst(self.opts.verbose_name)}: {each}" for each in gone], counts, forbidden, []
