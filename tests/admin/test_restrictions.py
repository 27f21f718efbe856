"""The admin of bans and mutes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from rooms.models import Application, Ban, Mute, Restriction, Room
from rooms.node.control_messages import ApplicationChanged, RoomChanged
from tests.admin.pages import act, add, address, form_of, save

KINDS = pytest.mark.parametrize("kind", [Ban, Mute])


@KINDS
def test_a_new_restriction_records_its_creator_and_sends_a_message(
    client: Client, room: Room, superuser: User, sent: list[Any], kind: type[Restriction]
) -> None:
    fields = {"application": room.application_id, "room": room.pk, "guest": "Bob", "reason": "Noise"}
    assert add(client, kind, fields).status_code == 302
    restriction = kind._default_manager.get()
    assert (restriction.created_by, restriction.room, restriction.guest) == (superuser, room, "Bob")
    assert sent == [RoomChanged(application="tea", room=room.pk, name="lobby", listed=True)]


@KINDS
def test_a_change_keeps_user_and_creator(
    client: Client, application: Application, superuser: User, sent: list[Any], kind: type[Restriction]
) -> None:
    ann = User.objects.create_user("ann")
    restriction = kind._default_manager.create(application=application, user=ann, created_by=ann)
    sent.clear()
    changes = {"reason": "Noise", "user": superuser.pk, "until_0": "2030-01-01", "until_1": "12:00:00"}
    assert save(client, restriction, changes).status_code == 302
    restriction.refresh_from_db()
    assert (restriction.user, restriction.created_by, restriction.reason) == (ann, ann, "Noise")
    assert restriction.until is not None
    assert sent == [ApplicationChanged(application="tea")]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({}, "__all__"),
        ({"guest": "Bob", "user": "superuser"}, "__all__"),
        ({"guest": "Bob", "room": "elsewhere"}, "room"),
    ],
)
def test_invalid_fields_are_reported(
    client: Client, application: Application, superuser: User, fields: dict[str, Any], where: str
) -> None:
    elsewhere = Room.objects.create(application=Application.objects.create(name="other"), name="room")
    keys = {"superuser": superuser.pk, "elsewhere": elsewhere.pk}
    sent = {name: keys.get(value, value) for name, value in fields.items()}
    response = add(client, Ban, {"application": application.pk, **sent})
    assert list(form_of(response).errors) == [where]
    assert not Ban.objects.exists()


def test_a_deletion_sends_a_message(client: Client, application: Application, sent: list[Any]) -> None:
    bans = [Ban.objects.create(application=application, guest=name) for name in ("Ann", "Bob")]
    sent.clear()
    act(client, "delete_selected", *bans, post="yes")
    assert not Ban.objects.exists()
    assert sent == [ApplicationChanged(application="tea")] * 2


def test_the_filter_separates_active_and_expired_restrictions(
    client: Client, application: Application
) -> None:
    for guest, until in (("Ann", None), ("Bob", timedelta(hours=1)), ("Eve", timedelta(hours=-1))):
        ends = None if until is None else timezone.now() + until
        Ban.objects.create(application=application, guest=guest, until=ends)
    for value, found in (("yes", {"Ann", "Bob"}), ("no", {"Eve"}), ("", {"Ann", "Bob", "Eve"})):
        response = client.get(address(Ban, "changelist"), {"active": value} if value else {})
        assert {ban.guest for ban in response.context["cl"].result_list} == found


@pytest.mark.parametrize(("searched", "found"), [("Bob", 1), ("ann", 1), ("noise", 1), ("lobby", 1)])
def test_search(client: Client, room: Room, searched: str, found: int) -> None:
    Ban.objects.create(application=room.application, room=room, guest="Bob", reason="Noise")
    Ban.objects.create(application=room.application, user=User.objects.create_user("ann"))
    response = client.get(address(Ban, "changelist"), {"q": searched})
    assert response.context["cl"].result_count == found


@KINDS
def test_the_number_of_queries_of_the_list_is_constant(
    client: Client, room: Room, kind: type[Restriction], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    kind._default_manager.create(application=room.application, guest="Bob")
    with django_assert_num_queries(10, exact=False) as few:
        client.get(address(kind, "changelist"))
    for number in range(20):
        application = Application.objects.create(name=f"application-{number}")
        other = Room.objects.create(application=application, name="room")
        user = User.objects.create_user(f"user-{number}")
        kind._default_manager.create(application=application, room=other, user=user, created_by=user)
    with django_assert_num_queries(len(few)):
        client.get(address(kind, "changelist"))
