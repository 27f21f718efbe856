"""Applications in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from rooms.models import Application, Room
from rooms.node.control_messages import ApplicationChanged
from tests.admin.pages import act, address, form_of, save


def test_the_list_counts_rooms(client: Client, application: Application) -> None:
    other = Application.objects.create(name="other")
    for number in range(3):
        Room.objects.create(application=other, name=f"room {number}")
    for order, counts in (("4", [("tea", 0), ("other", 3)]), ("-4", [("other", 3), ("tea", 0)])):
        response = client.get(address(Application, "changelist"), {"o": order})
        rows = response.context["cl"].result_list
        assert [(row.name, row.count_of_rooms) for row in rows] == counts
    assert f'href="{address(Room, "changelist")}?application__id__exact={other.pk}">3<' in response.text


def test_the_list_asks_as_much_for_many_as_for_few(
    client: Client, application: Application, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(6, exact=False) as few:
        client.get(address(Application, "changelist"))
    for number in range(20):
        added = Application.objects.create(name=f"application-{number}")
        Room.objects.create(application=added, name="room")
    with django_assert_num_queries(len(few)):
        client.get(address(Application, "changelist"))


@pytest.mark.parametrize(("searched", "found"), [("tea", 1), ("cake", 1), ("coffee", 0)])
def test_search(client: Client, application: Application, searched: str, found: int) -> None:
    response = client.get(address(Application, "changelist"), {"q": searched})
    assert response.context["cl"].result_count == found


@pytest.mark.parametrize(("action", "enabled"), [("disable", False), ("enable", True)])
def test_the_actions_reach_the_sockets_of_what_they_change(
    client: Client, application: Application, notices: list[Any], action: str, enabled: bool
) -> None:
    others = [
        Application.objects.create(name=name, enabled=not enabled, title="As it was") for name in ("a", "b")
    ]
    Application.objects.filter(pk=application.pk).update(enabled=enabled)
    notices.clear()
    response = act(client, action, application, *others)
    assert response.status_code == 302
    assert set(Application.objects.values_list("enabled", flat=True)) == {enabled}
    assert notices == [ApplicationChanged(application="a"), ApplicationChanged(application="b")]
    assert LogEntry.objects.count() == 2
    assert f"2 applications were {action}d." in client.get(response["Location"]).text


def test_an_onlooker_has_no_actions(onlooker: Client, application: Application) -> None:
    act(onlooker, "disable", application)
    application.refresh_from_db()
    assert application.enabled


def test_blank_limits_show_what_holds(client: Client, application: Application, settings: Any) -> None:
    settings.ROOMS = {"LEAVE_GRACE": 4321}
    form = form_of(client.get(address(Application, "change", application.pk)))
    assert form.fields["leave_grace"].widget.attrs["placeholder"] == 4321
    assert form["leave_grace"].value() is None
    # What a blank one stands for differs from door to door.
    assert "placeholder" not in str(form["max_message_bytes"])
    assert "protocol" in form["max_message_bytes"].help_text


def test_doors_are_chosen_by_ticking_them(client: Client, application: Application) -> None:
    save(client, application, {"protocols": ["native", "roomer"]})
    application.refresh_from_db()
    assert application.protocols == ["native", "roomer"]
    save(client, application, {"protocols": None})
    application.refresh_from_db()
    assert application.protocols == []
    assert "protocols" in form_of(save(client, application, {"protocols": ["matrix"]})).errors


def test_doors_that_the_site_has_closed_are_marked(
    client: Client, application: Application, settings: Any
) -> None:
    settings.ROOMS = {"PROTOCOLS": ["native", "gowsev"]}
    page = client.get(address(Application, "change", application.pk)).text
    assert page.count("(closed by this site&#x27;s settings)") == 3
    assert "roomer (closed by this site&#x27;s settings)" in page
    assert "gowsev (closed" not in page


def test_doors_that_are_all_closed_are_not_chosen(
    client: Client, application: Application, settings: Any
) -> None:
    settings.ROOMS = {"PROTOCOLS": ["native", "gowsev"]}
    page = save(client, application, {"protocols": ["roomer", "goroomserver"]})
    assert "so nobody could come in. They open: native, gowsev." in page.text
    assert save(client, application, {"protocols": ["roomer", "gowsev"]}).status_code == 302
    application.refresh_from_db()
    assert application.protocols == ["roomer", "gowsev"]


@pytest.mark.parametrize(("protocol", "names"), [("roomer", ["fewer", "tea"]), ("native", ["tea"])])
def test_applications_are_filtered_by_the_door_that_they_open(
    client: Client, application: Application, protocol: str, names: list[str]
) -> None:
    Application.objects.create(name="fewer", protocols=["roomer", "gowsev"])
    found = client.get(address(Application, "changelist"), {"protocol": protocol}).context["cl"].result_list
    assert [row.name for row in found] == names
