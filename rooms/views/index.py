"""The page that lists the applications one may turn to."""

from __future__ import annotations

from typing import Any

from django.views.generic import TemplateView

from rooms.models import Application


class IndexView(TemplateView):
    """Every application that lets in native clients, as the pages are, by title."""

    template_name = "rooms/index.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        enabled = Application.objects.filter(enabled=True).order_by("title", "name")
        applications = [application for application in enabled if application.lets_in("native")]
        return super().get_context_data(**kwargs, applications=applications)
