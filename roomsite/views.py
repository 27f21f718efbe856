"""The site's own page: what this is and where to go from here; and its icon."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.templatetags.static import static
from django.views.generic import RedirectView, TemplateView


class HomeView(TemplateView):
    """The first page."""

    template_name = "home.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        # By name, because the models of rooms are not among the names that it offers to import.
        applications = apps.get_model("rooms", "Application").objects.order_by("title", "name")
        # Those with a page: its socket speaks the native protocol.
        open_ones = [application for application in applications if application.allows_protocol("native")]
        return super().get_context_data(**kwargs, applications=open_ones)


class IconView(RedirectView):
    """Where browsers look for an icon on pages that name none, such as the admin's."""

    def get_redirect_url(self, *args: Any, **kwargs: Any) -> str:
        # Not before a request: a site that names its static files by their content has to collect them first.
        return static("rooms/icon.svg")
