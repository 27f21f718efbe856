"""The list of applications, the chat page, and plain HTTP at a WebSocket URL.

The chat page checks the access of the user with ``node/permissions.py``; its WebSocket checks it again. The
scripts of the page start in ``static/rooms/chat.js``.
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


# A CSRF token or a login does not change the response.
@csrf_exempt
@login_not_required
def upgrade_required(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """Respond to GET with 426 Upgrade Required (RFC 9110), else with 405."""
    if request.method != "GET":
        text = f"Expected GET at the URL of a WebSocket, got {request.method}.\n"
        return HttpResponseNotAllowed(["GET"], text, content_type=PLAIN)
    response = HttpResponse(
        "This is the URL of a WebSocket: open it as ws:// or wss://.\n", status=426, content_type=PLAIN
    )
    response["Upgrade"] = "websocket"
    response["Connection"] = "Upgrade"
    return response


class IndexView(TemplateView):
    """Lists the enabled applications that allow the native protocol, by title."""

    template_name = "rooms/index.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        enabled = Application.objects.filter(enabled=True).order_by("title", "name")
        applications = [application for application in enabled if application.allows_protocol("native")]
        return super().get_context_data(**kwargs, applications=applications)


class ChatView(TemplateView):
    """The chat page of one application, for users with access."""

    template_name = "rooms/chat.html"
    application: ApplicationConfig

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        application = load_application(kwargs["application"])
        if application is None or not _has_page(application):
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


def _has_page(application: ApplicationConfig) -> bool:
    """Return whether the WebSocket of the page is allowed."""
    return "native" in get_settings().protocols and application.allows_protocol("native")


def _check_entry(application: ApplicationConfig, account: AbstractBaseUser | AnonymousUser) -> None:
    # The user model of a site may have no groups.
    groups = account.groups.values_list("pk", flat=True) if hasattr(account, "groups") else ()
    user = User(name=account.get_username(), id=str(account.pk), guest=False)
    permissions.check_entry(application, user, frozenset(groups))


def _sign_in(request: HttpRequest) -> str | None:
    """Return the login URL that leads back here, if the site has a URL named login."""
    try:
        return f"{reverse('login')}?{urlencode({'next': request.get_full_path()})}"
    except NoReverseMatch:
        return None
