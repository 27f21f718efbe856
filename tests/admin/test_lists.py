"""Every list shows each row once, in the order of any column."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.db.models import Model
from django.test import Client
from django.utils import timezone

from rooms.models import Application, Ban, Message, Mute, Room, StateMessage
from tests.admin.pages import address

MODELS = [Application, Room, Message, StateMessage, Ban, Mute]


@pytest.fixture
def rows(db: None) -> None:
    """Two rows of each model, and two related rows of each."""
    for name in ("one", "two"):
        application = Application.objects.create(name=name)
        for room in [application.rooms.create(name=f"{name} {number}") for number in range(2)]:
            for seq in range(1, 3):
                fields = {"event": f"event {seq}", "data": "1", "time": timezone.now(), "seq": seq}
                Message.objects.create(room=room, **fields)
                StateMessage.objects.create(room=room, **fields)
            for kind in (Ban, Mute):
                kind.objects.create(application=application, room=room, guest=room.name)


@pytest.mark.parametrize("model", MODELS)
def test_a_sorted_list_shows_each_row_once(client: Client, rows: None, model: type[Model]) -> None:
    columns = len(admin.site.get_model_admin(model).list_display)
    for order in [sign + str(column) for column in range(1, columns + 1) for sign in ("", "-")]:
        response = client.get(address(model, "changelist"), {"o": order})
        shown = [row.pk for row in response.context["cl"].result_list]
        assert sorted(shown) == sorted(model._default_manager.values_list("pk", flat=True))
