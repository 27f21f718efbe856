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

        from rooms import signals
        from rooms.checks import rows, settings
        from rooms.extensions import registry
        from rooms.node import outbound
        from rooms.node.outbound_connections import OutboundConnections

        registry.autodiscover()
        signals.connect()
        OutboundConnections.keep = outbound.keep
        register(settings.check_rooms, "rooms")
        register(rows.check_histories, Tags.database)
