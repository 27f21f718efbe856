"""The home page, login and logout, the icon, and the page for 404."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from rooms.models import Application

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann", password="sesame")


def test_the_home_page_links_to_enabled_applications(client: Client) -> None:
    Application.objects.create(name="tea", title="Tea")
    Application.objects.create(name="closed", enabled=False)
    response = client.get("/")
    assert response.status_code == 200
    assert 'href="/rooms/tea/"' in response.text
    assert "/rooms/closed/" not in response.text


def test_login_and_logout(client: Client, ann: User) -> None:
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
def test_the_header_links_to_the_admin_for_staff(client: Client, ann: User, staff: bool) -> None:
    User.objects.update(is_staff=staff)
    client.force_login(ann)
    header = client.get("/").text.partition("</header>")[0]
    assert ("/admin/" in header) is staff


def test_the_icon_url_redirects_to_the_static_file(client: Client) -> None:
    assert client.get("/favicon.ico")["Location"] == "/static/rooms/icon.svg"


def test_an_unknown_path_has_an_error_page(client: Client) -> None:
    response = client.get("/nothing/here/")
    assert response.status_code == 404
    assert "Page not found" in response.text
