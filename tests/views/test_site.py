"""The pages around the chats: home, signing in and out, what is not there."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from rooms.models import Application

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann", password="sesame")


def test_home_leads_to_the_applications(client: Client) -> None:
    Application.objects.create(name="tea", title="Tea")
    Application.objects.create(name="closed", enabled=False)
    response = client.get("/")
    assert response.status_code == 200
    assert 'href="/rooms/tea/"' in response.text
    assert "/rooms/closed/" not in response.text


def test_signing_in_and_out(client: Client, ann: User) -> None:
    assert "Sign in" in client.get("/login/").text
    wrong = client.post("/login/", {"username": "ann", "password": "wrong"})
    assert 'role="alert"' in wrong.text
    right = client.post("/login/", {"username": "ann", "password": "sesame", "next": "/rooms/"}, follow=True)
    assert right.redirect_chain == [("/rooms/", 302)]
    assert "Sign out" in right.text
    assert client.get("/logout/").status_code == 405
    out = client.post("/logout/", follow=True)
    assert out.redirect_chain == [("/", 302)]
    assert "Sign in" in out.text


@pytest.mark.parametrize("staff", [False, True])
def test_the_admin_is_offered_in_the_header_to_staff(client: Client, ann: User, staff: bool) -> None:
    User.objects.update(is_staff=staff)
    client.force_login(ann)
    header = client.get("/").text.partition("</header>")[0]
    assert ("/admin/" in header) is staff


def test_browsers_find_an_icon_everywhere(client: Client) -> None:
    assert client.get("/favicon.ico")["Location"] == "/static/rooms/icon.svg"


def test_what_is_not_there(client: Client) -> None:
    response = client.get("/nothing/here/")
    assert response.status_code == 404
    assert "Page not found" in response.text
