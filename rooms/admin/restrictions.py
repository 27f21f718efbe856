"""The admin of bans and mutes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from rooms.admin.formatting import short_time
from rooms.admin.user_fields import UserFieldsAdmin
from rooms.models import Ban, Mute, Restriction


class ActiveFilter(admin.SimpleListFilter):
    """Filters active or expired restrictions."""

    title = _("active")
    parameter_name = "active"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [("yes", _("Yes")), ("no", _("No"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        ended = Q(until__lte=timezone.now())
        if self.value() == "yes":
            return queryset.exclude(ended)
        return queryset.filter(ended) if self.value() == "no" else queryset


class RestrictionAdmin(UserFieldsAdmin):
    """Shared by bans and mutes."""

    list_display = ("__str__", "where", "active", "ends", "reason")
    list_filter = (ActiveFilter, "application", "created")
    search_fields = (
        *("guest", "reason", "room__name", "room__title", "application__name", "application__title"),
        f"user__{get_user_model().USERNAME_FIELD}",
    )
    date_hierarchy = "created"
    autocomplete_fields = ("application", "room")
    raw_id_fields = ("user",)
    readonly_fields = ("created", "created_by")
    fields = ("application", "room", "user", "guest", "until", "reason", "created", "created_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        related = ("application", "room__application", "user", "created_by")
        return super().get_queryset(request).select_related(*related)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # Another user or room needs another restriction.
        fixed = () if obj is None else ("application", "room", "user", "guest")
        return (*fixed, *self.readonly_fields)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = request.user
        super().save_model(request, obj, form, change)

    @admin.display(description=_("where"), ordering="application__name")
    def where(self, restriction: Restriction) -> str:
        return str(restriction.room or restriction.application)

    @admin.display(description=_("until"), ordering="until", empty_value="-")
    def ends(self, restriction: Restriction) -> str | None:
        return short_time(restriction.until) if restriction.until else None

    @admin.display(description=_("active"), boolean=True)
    def active(self, restriction: Restriction) -> bool:
        return restriction.until is None or restriction.until > timezone.now()


@admin.register(Ban)
class BanAdmin(RestrictionAdmin):
    """Bans."""


@admin.register(Mute)
class MuteAdmin(RestrictionAdmin):
    """Mutes."""
