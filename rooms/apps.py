"""The Django app: loads the site's extensions, listens to its own tables, registers the checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RoomsConfig(AppConfig):
    name = "rooms"
    verbose_name = _("Rooms")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.core.checks import Tags, register

        from rooms import checks, dialling, row_checks, signals
        from rooms.engine.dials import Dials
        from rooms.extensions import registry

        registry.autodiscover()
        signals.connect()
        Dials.keep = dialling.keep
        register(checks.check_rooms, "rooms")
        register(row_checks.check_histories, Tags.database)
