"""Choosing users, whatever the site's user model is."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.http import HttpRequest


class PeopleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Its ``raw_id_fields`` lead to users. They are searched by name where the site has its users in
    the admin, and are given by id where it has not: a static autocomplete would be an error there."""

    def get_autocomplete_fields(self, request: HttpRequest) -> Any:
        fields = super().get_autocomplete_fields(request)
        users = get_user_model()
        if self.admin_site.is_registered(users) and self.admin_site.get_model_admin(users).search_fields:
            return [*fields, *self.raw_id_fields]
        return fields
