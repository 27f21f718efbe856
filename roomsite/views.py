"""Serve the home page and the icon of the example site."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.templatetags.static import static
from django.views.generic import RedirectView, TemplateView


class HomeView(TemplateView):
    """Show the home page with the applications that have a chat page."""

    template_name = "home.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        # Looked up by name, because `rooms` does not export its models.
        applications = apps.get_model("rooms", "Application").objects.order_by("title", "name")
        # The chat page uses the native protocol.
        with_page = [application for application in applications if application.allows_protocol("native")]
        return super().get_context_data(**kwargs, applications=with_page)


class IconView(RedirectView):
    """Redirect /favicon.ico to the static icon.

    Browsers request this address on pages without an icon link, such as those of the admin.
    """

    def get_redirect_url(self, *args: Any, **kwargs: Any) -> str:
        # At request time, because hashed static file names exist only after collectstatic.
        return static("rooms/icon.svg")
