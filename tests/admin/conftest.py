"""A superuser, a viewer, and rows to administrate.

Models are imported late: pytest may load this file before it configures Django.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client

    from rooms.models import Application, Room


@pytest.fixture
def superuser(django_user_model: type[User], db: None) -> User:
    return django_user_model.objects.create_superuser("superuser")


@pytest.fixture
def client(client: Client, superuser: User) -> Client:
    """A client in which the superuser is signed in."""
    client.force_login(superuser)
    return client


@pytest.fixture
def viewer(django_user_model: type[User], db: None) -> Client:
    """A client of a user with all view permissions of this app and no others."""
    from django.contrib.auth.models import Permission
    from django.test import Client

    user = django_user_model.objects.create_user("viewer", is_staff=True)
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
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The control messages that are sent from now on."""
    messages: list[Any] = []
    monkeypatch.setattr("rooms.signals.notify", messages.append)
    return messages
