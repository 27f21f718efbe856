"""Somebody who may do everything, and somebody who may only look."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from rooms import signals
from rooms.models import Application, Room


@pytest.fixture
def boss(db: None) -> User:
    return User.objects.create_superuser("boss")


@pytest.fixture
def client(boss: User) -> Client:
    """A browser in which the superuser is signed in."""
    client = Client()
    client.force_login(boss)
    return client


@pytest.fixture
def onlooker(db: None) -> Client:
    """A browser of somebody who may see everything of this app and change nothing."""
    user = User.objects.create_user("onlooker", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="rooms", codename__startswith="view")
    )
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def application(db: None) -> Application:
    return Application.objects.create(name="tea", title="Tea & cake")


@pytest.fixture
def room(application: Application) -> Room:
    return Room.objects.create(application=application, name="lobby")


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the engine of every process is told from now on."""
    told: list[Any] = []
    monkeypatch.setattr(signals, "notify", told.append)
    return told
