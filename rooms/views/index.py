"""The page that lists the applications one may turn to."""

from __future__ import annotations

from django.db.models import QuerySet
from django.views.generic import ListView

from rooms.models import Application


class IndexView(ListView):  # type: ignore[type-arg]  # Django's own class takes no parameters when it runs
    """Every enabled application, by title."""

    template_name = "rooms/index.html"
    context_object_name = "applications"

    def get_queryset(self) -> QuerySet[Application]:
        return Application.objects.filter(enabled=True).order_by("title", "name")
