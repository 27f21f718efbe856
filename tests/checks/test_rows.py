"""The check of rows whose history has no backend."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import override_settings

from rooms.checks.rows import check_histories
from rooms.models import Application, Room

pytestmark = [pytest.mark.database, pytest.mark.django_db]

REDIS: dict[str, Any] = {
    "HISTORIES": {"redis": {"BACKEND": "rooms.histories.redis.RedisHistory", "OPTIONS": {"url": "redis://"}}}
}


def test_a_history_without_a_backend_is_reported() -> None:
    chat = Application.objects.create(name="chat", history="redis")
    Room.objects.create(application=chat, name="lobby", history="redis")
    Room.objects.create(application=chat, name="hall")
    with override_settings(ROOMS={}):
        found = check_histories(databases=["default"])
        assert [each.id for each in found] == ["rooms.E007"] * 2
        assert "'chat'" in found[0].msg
        assert "'lobby'" in found[1].msg
        assert "database, memory, none" in (found[0].hint or "")
        # Without databases, no row is read.
        assert check_histories(databases=None) == []
    with override_settings(ROOMS=REDIS):
        assert check_histories(databases=["default"]) == []


def test_a_history_without_a_backend_cannot_be_chosen() -> None:
    chat = Application(name="chat", history="redis")
    room = Room(application=Application.objects.create(name="quiz"), name="lobby", history="redis")
    for row in (chat, room):
        with override_settings(ROOMS={}), pytest.raises(ValidationError) as raised:
            row.full_clean()
        assert list(raised.value.message_dict) == ["history"]
        assert "Choose one of database, memory, none." in str(raised.value)
        with override_settings(ROOMS=REDIS):
            row.full_clean()
