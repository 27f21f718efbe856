"""The list of applications, and access to the chat page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from rooms.models import Application, Ban

pytestmark = pytest.mark.django_db


@pytest.fixture
def application() -> Application:
    return Application.objects.create(name="tea", title="Tea & cake")


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann", password="sesame")


def config(response: HttpResponse) -> dict[str, Any]:
    found = re.search(r'<script id="rooms-config" type="application/json">(.*?)</script>', response.text)
    assert found
    return json.loads(found[1])


def test_a_guest_gets_the_page_with_a_link_to_the_login(client: Client, application: Application) -> None:
    response = client.get("/rooms/tea/")
    assert response.status_code == 200
    assert config(response) == {"application": "tea", "socket": "/ws/rooms/tea/", "user": None, "room": None}
    assert "Tea &amp; cake" in response.text
    assert "/login/?next=%2Frooms%2Ftea%2F" in response.text


def test_the_config_has_the_signed_in_user(client: Client, application: Application, ann: User) -> None:
    client.force_login(ann)
    response = client.get("/rooms/tea/")
    assert config(response)["user"] == "ann"
    assert "/login/" not in response.text


def test_the_config_has_the_room_of_the_query_escaped(client: Client, application: Application) -> None:
    script = "</script><script>alert(1)</script>"
    response = client.get("/rooms/tea/", {"room": script})
    assert config(response)["room"] == script
    assert "alert(1)</script>" not in response.text


@pytest.mark.parametrize("path", ["/rooms/coffee/", "/rooms/closed/"])
def test_unknown_and_disabled_applications_are_not_found(client: Client, path: str) -> None:
    Application.objects.create(name="closed", enabled=False)
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("entry", ["users", "group"])
def test_an_anonymous_user_is_redirected_to_the_login(
    client: Client, application: Application, entry: str
) -> None:
    Application.objects.update(entry=entry, group=Group.objects.create(name="drinkers"))
    response = client.get("/rooms/tea/?room=pot")
    assert response.status_code == 302
    assert response["Location"] == "/login/?next=/rooms/tea/%3Froom%3Dpot"


def test_access_by_group_needs_a_member_of_the_group(
    client: Client, application: Application, ann: User
) -> None:
    group = Group.objects.create(name="drinkers")
    Application.objects.update(entry="group", group=group)
    client.force_login(ann)
    response = client.get("/rooms/tea/")
    assert response.status_code == 403
    assert "Only members of the group that staff chose can log in here." in response.text
    ann.groups.add(group)
    assert client.get("/rooms/tea/").status_code == 200


def test_a_banned_user_gets_the_reason(client: Client, application: Application, ann: User) -> None:
    Ban.objects.create(application=application, user=ann, reason="Spilled <everything>")
    client.force_login(ann)
    response = client.get("/rooms/tea/")
    assert response.status_code == 403
    assert "Spilled &lt;everything&gt;" in response.text


@pytest.mark.parametrize(("on_demand", "buttons"), [(True, 1), (False, 0)])
def test_creating_rooms_is_offered_where_it_is_allowed(
    client: Client, application: Application, on_demand: bool, buttons: int
) -> None:
    Application.objects.update(rooms_on_demand=on_demand)
    assert client.get("/rooms/tea/").text.count('value="create"') == buttons


class Inline(HTMLParser):
    """Finds elements that a Content-Security-Policy of `default-src 'self'` forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        code = tag == "script" and not named.get("src") and named.get("type") != "application/json"
        if tag == "style" or code:
            self.found.append(f"<{tag}>")
        for name, value in attributes:
            address = value if value and name in {"src", "href", "action"} else ""
            outside = re.match(r"(https?:)?//|javascript:|data:", address)
            if name == "style" or name.startswith("on") or outside:
                self.found.append(f"<{tag} {name}={value}>")


@pytest.mark.parametrize("signed_in", [False, True])
@pytest.mark.parametrize(
    "path", ["/", "/login/", "/rooms/", "/rooms/tea/", "/rooms/members/", "/rooms/nothing/"]
)
def test_pages_have_no_inline_code_or_style(
    client: Client, application: Application, ann: User, path: str, signed_in: bool
) -> None:
    Application.objects.create(name="members", entry="group")
    if signed_in:
        client.force_login(ann)
    page = Inline()
    page.feed(client.get(path).text)
    assert page.found == []


def test_the_index_lists_enabled_applications(client: Client, application: Application) -> None:
    Application.objects.create(name="closed", title="Closed", enabled=False)
    response = client.get(reverse("rooms:index"))
    assert reverse("rooms:chat", args=["tea"]) in response.text
    assert "Closed" not in response.text


@pytest.mark.parametrize("refused_by", ["site", "application"])
def test_there_is_no_page_where_its_websocket_is_not_allowed(
    client: Client, application: Application, settings: Any, refused_by: str
) -> None:
    Application.objects.create(name="chosen", protocols=["gowsev", "native"])
    if refused_by == "site":
        settings.ROOMS = {"PROTOCOLS": ["gowsev"]}
    else:
        Application.objects.filter(name="tea").update(protocols=["gowsev"])
    assert client.get("/rooms/tea/").status_code == 404
    expected = [] if refused_by == "site" else ["chosen"]
    for index in ("/", reverse("rooms:index")):
        assert re.findall(r"/rooms/(\w+)/", client.get(index).text) == expected


def test_a_site_without_templates_uses_the_default_ones(
    client: Client, application: Application, settings: Any
) -> None:
    settings.TEMPLATES = [settings.TEMPLATES[0] | {"DIRS": []}]
    response = client.get("/rooms/tea/")
    assert response.status_code == 200
    assert [template.name for template in response.templates].count("rooms/base.html") == 1
    assert "site.css" not in response.text
