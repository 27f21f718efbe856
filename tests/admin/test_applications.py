"""The admin of applications."""

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


def test_the_number_of_queries_of_the_list_is_constant(
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
def test_the_actions_send_a_message_for_each_row_that_they_change(
    client: Client, application: Application, sent: list[Any], action: str, enabled: bool
) -> None:
    others = [
        Application.objects.create(name=name, enabled=not enabled, title="As it was") for name in ("a", "b")
    ]
    Application.objects.filter(pk=application.pk).update(enabled=enabled)
    sent.clear()
    response = act(client, action, application, *others)
    assert response.status_code == 302
    assert set(Application.objects.values_list("enabled", flat=True)) == {enabled}
    assert sent == [ApplicationChanged(application="a"), ApplicationChanged(application="b")]
    assert LogEntry.objects.count() == 2
    assert f"2 applications were {action}d." in client.get(response["Location"]).text


def test_a_viewer_has_no_actions(viewer: Client, application: Application) -> None:
    act(viewer, "disable", application)
    application.refresh_from_db()
    assert application.enabled


def test_blank_limits_show_the_defaults(client: Client, application: Application, settings: Any) -> None:
    settings.ROOMS = {"LEAVE_GRACE": 4321}
    form = form_of(client.get(address(Application, "change", application.pk)))
    assert form.fields["leave_grace"].widget.attrs["placeholder"] == 4321
    assert form["leave_grace"].value() is None
    # The default differs from protocol to protocol.
    assert "placeholder" not in str(form["max_message_bytes"])
    assert "protocol" in form["max_message_bytes"].help_text


def test_protocols_are_chosen_with_checkboxes(client: Client, application: Application) -> None:
    save(client, application, {"protocols": ["native", "roomer"]})
    application.refresh_from_db()
    assert application.protocols == ["native", "roomer"]
    save(client, application, {"protocols": None})
    application.refresh_from_db()
    assert application.protocols == []
    assert "protocols" in form_of(save(client, application, {"protocols": ["matrix"]})).errors


def test_protocols_that_the_site_does_not_allow_are_marked(
    client: Client, application: Application, settings: Any
) -> None:
    settings.ROOMS = {"PROTOCOLS": ["native", "gowsev"]}
    page = client.get(address(Application, "change", application.pk)).text
    assert page.count("(not allowed by the settings of this site)") == 3
    assert "roomer (not allowed by the settings of this site)" in page
    assert "gowsev (not allowed" not in page


def test_protocols_that_the_site_does_not_allow_cannot_be_chosen_alone(
    client: Client, application: Application, settings: Any
) -> None:
    settings.ROOMS = {"PROTOCOLS": ["native", "gowsev"]}
    page = save(client, application, {"protocols": ["roomer", "goroomserver"]})
    assert "allow none of the chosen protocols, only: native, gowsev." in page.text
    assert save(client, application, {"protocols": ["roomer", "gowsev"]}).status_code == 302
    application.refresh_from_db()
    assert application.protocols == ["roomer", "gowsev"]


@pytest.mark.parametrize(("protocol", "names"), [("roomer", ["fewer", "tea"]), ("native", ["tea"])])
def test_applications_are_filtered_by_protocol(
    client: Client, application: Application, protocol: str, names: list[str]
) -> None:
    Application.objects.create(name="fewer", protocols=["roomer", "gowsev"])
    found = client.get(address(Application, "changelist"), {"protocol": protocol}).context["cl"].result_list
    assert [row.name for row in found] == names
