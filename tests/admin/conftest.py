"""Somebody who may do everything, and somebody who may only look.

What needs Django set up is imported late: pytest may read this file before it configures the suite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client

    from rooms.models import Application, Room


@pytest.fixture
def boss(django_user_model: type[User], db: None) -> User:
    return django_user_model.objects.create_superuser("boss")


@pytest.fixture
def client(client: Client, boss: User) -> Client:
    """A browser in which the superuser is signed in."""
    client.force_login(boss)
    return client


@pytest.fixture
def onlooker(django_user_model: type[User], db: None) -> Client:
    """A browser of somebody who may see everything of this app and change nothing."""
    from django.contrib.auth.models import Permission
    from django.test import Client

    user = django_user_model.objects.create_user("onlooker", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="rooms", codename__startswith="view")
    )
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def application(db: None) -> Application:
    from rooms.models import Application

    return Application.objects.create(name="tea", title="Tea & cake")


@pytest.fixture
def room(application: Application) -> Room:
    return application.rooms.create(name="lobby")


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the engine of every process is told from now on."""
    told: list[Any] = []
    monkeypatch.setattr("rooms.signals.notify", told.append)
    return told
