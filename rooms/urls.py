"""The pages of Rooms: ``path("rooms/", include("rooms.urls"))``. The sockets are in ``routing.py``."""

from __future__ import annotations

from django.urls import path

from rooms import views

app_name = "rooms"

urlpatterns = [
    path("", views.IndexView.as_view(), name="index"),
    path("<slug:application>/", views.ChatView.as_view(), name="chat"),
]
