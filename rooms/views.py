"""The pages: the list of applications, the chat, and the answer to plain HTTP at a WebSocket address.

The chat page decides which users get the page; the socket behind it applies the same
``node/permissions.py`` again. The page's scripts are in ``static/rooms/chat.js``.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import TemplateView

from rooms.conf import get_settings
from rooms.hub.config import ApplicationConfig
from rooms.models import Application
from rooms.node import permissions
from rooms.node.config import load_application
from rooms.protocol.errors import RoomsError
from rooms.protocol.types import User

PLAIN = "text/plain; charset=utf-8"


# Neither a token nor a login would change the answer.
@csrf_exempt
@login_not_required
def upgrade_required(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """426 with what to upgrade to (RFC 9110, 15.5.22); 405 for any method but GET, as handshakes are."""
    if request.method != "GET":
        text = f"This is the address of a WebSocket, which begins with GET, not with {request.method}.\n"
        return HttpResponseNotAllowed(["GET"], text, content_type=PLAIN)
    response = HttpResponse(
        "This is the address of a WebSocket: open it as ws:// or wss://.\n", status=426, content_type=PLAIN
    )
    response["Upgrade"] = "websocket"
    response["Connection"] = "Upgrade"
    return response


class IndexView(TemplateView):
    """Every application that lets in native clients, as the pages are, by title."""

    template_name = "rooms/index.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        enabled = Application.objects.filter(enabled=True).order_by("title", "name")
        applications = [application for application in enabled if application.allows_protocol("native")]
        return super().get_context_data(**kwargs, applications=applications)


class ChatView(TemplateView):
    """The chat of one application, for those whom it admits."""

    template_name = "rooms/chat.html"
    application: ApplicationConfig

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


def _has_a_page(application: ApplicationConfig) -> bool:
    """Whether the page's own socket is let in."""
    return "native" in get_settings().protocols and application.allows_protocol("native")


def _check_entry(application: ApplicationConfig, account: AbstractBaseUser | AnonymousUser) -> None:
    # A site's own user model need not know groups.
    groups = account.groups.values_list("pk", flat=True) if hasattr(account, "groups") else ()
    user = User(name=account.get_username(), id=str(account.pk), guest=False)
    permissions.check_entry(application, user, frozenset(groups))


def _sign_in(request: HttpRequest) -> str | None:
    """Where one signs in and comes back from, on a site that names this place as Django does."""
    try:
        return f"{reverse('login')}?{urlencode({'next': request.get_full_path()})}"
    except NoReverseMatch:
        return None
