"""The pages of Rooms, and the answer to plain HTTP at the addresses of WebSockets.

::

    path("rooms/", include("rooms.urls")),
    path("ws", include(rooms.urls.socket_urlpatterns)),

The sockets themselves are in ``routing.py``.
"""

from __future__ import annotations

from django.urls import path, re_path

from rooms import views

app_name = "rooms"

urlpatterns = [
    path("", views.IndexView.as_view(), name="index"),
    path("<slug:application>/", views.ChatView.as_view(), name="chat"),
]

# Answers at ``/ws`` and at everything below ``/ws/``, where it is included at "ws".
socket_urlpatterns = [re_path(r"^(?:/|\Z)", views.upgrade_required)]
