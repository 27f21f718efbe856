"""The page in which people chat. It decides who gets the page; who gets into the socket behind it is
decided there again, by the same ``policy.py``. Everything that happens on the page afterwards is in
``static/rooms/chat.js``.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode
from django.views.generic import TemplateView

from rooms import policy
from rooms.catalogue import ApplicationRecord, load_application
from rooms.conf import get_settings
from rooms.errors import RoomsError
from rooms.events import User


class ChatView(TemplateView):
    """The chat of one application, for those whom it admits."""

    template_name = "rooms/chat.html"
    application: ApplicationRecord

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        application = load_application(kwargs["application"])
        if application is None or not _has_a_page(application):
            raise Http404("There is no such application.")
        self.application = application
        if request.user.is_authenticated:
            try:
                _check_entry(application, request.user)
            except RoomsError as refusal:
                context = {"application": application, "reason": refusal.message}
                return render(request, "rooms/not_allowed.html", context, status=403)
        elif application.entry != "anyone":
            return redirect_to_login(request.get_full_path())
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        user = self.request.user
        return super().get_context_data(
            **kwargs
            | {
                "application": self.application,
                "may_create": self.application.rooms_on_demand,
                "sign_in": None if user.is_authenticated else _sign_in(self.request),
                "config": {
                    "application": self.application.name,
                    "socket": f"/ws/rooms/{self.application.name}/",
                    "user": user.get_username() if user.is_authenticated else None,
                    "room": self.request.GET.get("room") or None,
                },
            }
        )


def _has_a_page(application: ApplicationRecord) -> bool:
    """Whether the page's own socket is let in."""
    return "native" in get_settings().doors and application.lets_in("native")


def _check_entry(application: ApplicationRecord, account: AbstractBaseUser | AnonymousUser) -> None:
    # A site's own user model need not know groups.
    groups = account.groups.values_list("pk", flat=True) if hasattr(account, "groups") else ()
    user = User(name=account.get_username(), id=str(account.pk), guest=False)
    policy.check_entry(application, user, frozenset(groups))


def _sign_in(request: HttpRequest) -> str | None:
    """Where one signs in and comes back from, on a site that names this place as Django does."""
    try:
        return f"{reverse('login')}?{urlencode({'next': request.get_full_path()})}"
    except NoReverseMatch:
        return None
