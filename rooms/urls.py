"""The URLs of the pages, and of plain HTTP requests to WebSocket URLs.

::

    path("rooms/", include("rooms.urls")),
    path("ws", include(rooms.urls.socket_urlpatterns)),

``routing.py`` has the URLs of the WebSockets themselves.
"""

from __future__ import annotations

from django.urls import path, re_path

from rooms import views

app_name = "rooms"

urlpatterns = [
    path("", views.IndexView.as_view(), name="index"),
    path("<slug:application>/", views.ChatView.as_view(), name="chat"),
]

# Included at "ws", it matches ``/ws`` and everything below ``/ws/``.
socket_urlpatterns = [re_path(r"^(?:/|\Z)", views.upgrade_required)]
