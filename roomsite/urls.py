"""URLs of the example site: its own pages, the chat pages, the admin."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from rooms.urls import socket_urlpatterns
from roomsite.views import HomeView, IconView

urlpatterns = [
    path("", HomeView.as_view(), name="home"),
    path("login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("rooms/", include("rooms.urls")),
    path("admin/", admin.site.urls),
    # `asgi.py` serves WebSockets at these addresses; other requests get an explanation.
    path("ws", include(socket_urlpatterns)),
    path("broadcasting", include(socket_urlpatterns)),
    path("favicon.ico", IconView.as_view()),
]
