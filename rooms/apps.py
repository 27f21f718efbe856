"""The Django app: registers extensions, signal receivers and system checks."""

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
        from rooms.checks import asgi, channel_layers, rows, settings
        from rooms.extensions import registry

        registry.autodiscover()
        signals.connect()
        register(asgi.check_asgi_application, "rooms")
        register(settings.check_settings, "rooms")
        register(channel_layers.check_channel_layer, "rooms")
        register(rows.check_histories, Tags.database)
