"""The admin of rooms: the list, the write-only password, the single owner."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from rooms.models import Application, Message, Room
from rooms.node.control_messages import RoomChanged
from tests.admin.pages import add, address, form_of, save


def store(room: Room, count: int) -> None:
    Message.objects.bulk_create(
        Message(room=room, seq=seq, event="message", data="1", time=timezone.now())
        for seq in range(1, count + 1)
    )


# The list ----------------------------------------------------------------------------------------------


def test_the_list_shows_message_count_and_last_message(client: Client, room: Room) -> None:
    quiet = Room.objects.create(application=room.application, name="quiet")
    store(room, 3)
    expected = [("lobby", 3, Message.objects.get(seq=3).time), ("quiet", 0, None)]
    for order in ("-4", "4"):
        response = client.get(address(Room, "changelist"), {"o": order})
        rows = response.context["cl"].result_list
        assert [(row.name, row.count_of_messages, row.time_of_last) for row in rows] == expected
        expected.reverse()
    assert f"room__id__exact={quiet.pk}" in response.text


def test_the_list_shows_the_owner(client: Client, application: Application) -> None:
    ann = User.objects.create_user("ann")
    Room.objects.create(application=application, name="one", owner=ann)
    Room.objects.create(application=application, name="two", guest_owner_id="7", guest_owner_name="Visitor")
    text = client.get(address(Room, "changelist")).text
    for cell in (">ann<", ">Visitor<"):
        assert cell in text


def test_the_number_of_queries_of_the_list_is_constant(
    client: Client, room: Room, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(10, exact=False) as few:
        client.get(address(Room, "changelist"))
    for number in range(20):
        application = Application.objects.create(name=f"application-{number}")
        owner = User.objects.create_user(f"owner-{number}")
        store(Room.objects.create(application=application, name="room", owner=owner), 2)
    with django_assert_num_queries(len(few)):
        client.get(address(Room, "changelist"))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        *[({"q": query}, ["lobby"]) for query in ("lob", "tea cake", "ann")],
        ({"q": "Visitor"}, ["other"]),
        ({"q": "nothing"}, []),
        ({"mode__exact": "broadcast"}, ["other"]),
        ({"listed__exact": "0"}, ["other"]),
        ({"password__isempty": "0"}, ["other"]),
    ],
)
def test_search_and_filters(client: Client, room: Room, query: dict[str, str], found: list[str]) -> None:
    room.owner = User.objects.create_user("ann")
    room.save()
    Room.objects.create(
        application=Application.objects.create(name="chess"),
        name="other",
        mode="broadcast",
        listed=False,
        password="!",
        guest_owner_id="7",
        guest_owner_name="Visitor",
    )
    rows = client.get(address(Room, "changelist"), query).context["cl"].result_list
    assert [row.name for row in rows] == found


def test_the_autocomplete_distinguishes_rooms_of_one_name(client: Client, room: Room) -> None:
    Room.objects.create(application=Application.objects.create(name="chess"), name="lobby")
    query = {"app_label": "rooms", "model_name": "ban", "field_name": "room", "term": "lobby"}
    results = client.get("/admin/autocomplete/", query).json()["results"]
    assert {result["text"] for result in results} == {"Tea & cake / lobby", "chess / lobby"}


# The page ----------------------------------------------------------------------------------------------


def test_a_password_is_hashed_kept_changed_and_removed(client: Client, room: Room) -> None:
    for changes, password in (
        ({"new_password": " sesame1 "}, " sesame1 "),
        ({}, " sesame1 "),
        ({"title": "Still kept"}, " sesame1 "),
        ({"new_password": "sesame2"}, "sesame2"),
    ):
        assert save(client, room, changes).status_code == 302
        room.refresh_from_db()
        assert password not in room.password
        assert check_password(password, room.password)
        page = client.get(address(Room, "change", room.pk)).text
        assert password.strip() not in page
        assert room.password not in page
    assert save(client, room, {"remove_password": "on"}).status_code == 302
    room.refresh_from_db()
    assert room.password == ""


def test_a_new_password_and_its_removal_are_an_error(client: Client, room: Room) -> None:
    save(client, room, {"new_password": "sesame1"})
    response = save(client, room, {"new_password": "sesame2", "remove_password": "on"})
    assert list(form_of(response).errors) == ["remove_password"]
    room.refresh_from_db()
    assert check_password("sesame1", room.password)


def test_removal_is_disabled_without_a_password(client: Client, room: Room) -> None:
    assert form_of(client.get(address(Room, "change", room.pk))).fields["remove_password"].disabled


def test_a_new_room_sends_a_message(client: Client, application: Application, sent: list[Any]) -> None:
    fields = {"application": application.pk, "name": "new", "new_password": "sesame"}
    assert add(client, Room, fields).status_code == 302
    room = Room.objects.get(name="new")
    assert check_password("sesame", room.password)
    assert room.extension_settings == {}
    assert sent == [RoomChanged(application="tea", room=room.pk, name="new", listed=False)]


@pytest.mark.parametrize(("name", "where"), [("", "name"), ("lob\u200bby", "name"), ("lobby", "__all__")])
def test_an_invalid_name_is_an_error(client: Client, room: Room, name: str, where: str) -> None:
    response = add(client, Room, {"application": room.application_id, "name": name})
    assert list(form_of(response).errors) == [where]


def test_a_user_replaces_a_guest_as_owner(client: Client, room: Room, superuser: User) -> None:
    Room.objects.filter(pk=room.pk).update(guest_owner_id="7", guest_owner_name="Visitor")
    assert "Visitor" in client.get(address(Room, "change", room.pk)).text
    save(client, room, {"title": "Still the guest's"})
    room.refresh_from_db()
    assert room.guest_owner_id == "7"
    assert save(client, room, {"owner": superuser.pk}).status_code == 302
    room.refresh_from_db()
    assert (room.owner, room.guest_owner_id, room.guest_owner_name) == (superuser, "", "")


def test_the_application_of_a_room_cannot_be_changed(client: Client, room: Room) -> None:
    other = Application.objects.create(name="other")
    save(client, room, {"application": other.pk})
    room.refresh_from_db()
    assert room.application.name == "tea"


def test_blank_fields_show_the_values_of_the_application(client: Client, room: Room) -> None:
    Application.objects.filter(pk=room.application_id).update(leave_grace=0, history_size=77)
    form = form_of(client.get(address(Room, "change", room.pk)))
    shown = {name: form.fields[name].widget.attrs["placeholder"] for name in form.inherited}
    assert shown["leave_grace"] == 0
    assert shown["history_size"] == 77
    assert shown["request_rate"] == 20
    assert dict(form.fields["history"].choices)[""] == "Same as the application"


def test_users_are_chosen_by_id_where_the_admin_has_no_user_model(
    client: Client, room: Room, superuser: User
) -> None:
    where = address(Room, "change", room.pk)
    assert "admin-autocomplete" in str(form_of(client.get(where))["owner"])
    users = admin.site.get_model_admin(User)
    admin.site.unregister(User)
    try:
        assert "admin-autocomplete" not in str(form_of(client.get(where))["owner"])
        assert save(client, room, {"owner": superuser.pk}).status_code == 302
    finally:
        admin.site.register(User, type(users))
    room.refresh_from_db()
    assert room.owner == superuser


def test_a_viewer_sees_all_fields_but_the_password(viewer: Client, room: Room) -> None:
    Room.objects.filter(pk=room.pk).update(password="md5$secret")
    page = viewer.get(address(Room, "change", room.pk))
    assert page.status_code == 200
    assert "password" not in page.text.replace("/password_change/", "").replace("Change password", "")
    assert viewer.get(address(Room, "changelist")).status_code == 200
