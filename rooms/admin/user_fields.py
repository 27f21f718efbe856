"""Fields that choose a user of the site's user model."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.http import HttpRequest


class UserFieldsAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Its ``raw_id_fields`` choose users.

    They become autocomplete fields where the admin has the user model; elsewhere Django's checks would
    report those as an error.
    """

    def get_autocomplete_fields(self, request: HttpRequest) -> Any:
        fields = super().get_autocomplete_fields(request)
        users = get_user_model()
        if self.admin_site.is_registered(users) and self.admin_site.get_model_admin(users).search_fields:
            return [*fields, *self.raw_id_fields]
        return fields
