"""Deletions in the admin: counts of related rows, and control messages."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from rooms.models import Application, Ban, Message, Room
from rooms.node.control_messages import ApplicationChanged, RoomChanged
from tests.admin.pages import act, address


@pytest.fixture
def messages(room: Room) -> list[Message]:
    return [
        Message.objects.create(room=room, seq=seq, event="message", data=f'"word {seq}"', time=timezone.now())
        for seq in range(1, 6)
    ]


def deleted(room: Room) -> RoomChanged:
    return RoomChanged(
        application=room.application.name, room=room.pk, name=room.name, listed=room.listed, deleted=True
    )


def test_related_rows_are_counted_and_not_listed(
    client: Client, application: Application, room: Room, messages: list[Message]
) -> None:
    Ban.objects.create(application=application, guest="Bob")
    for row, rooms in ((application, 1), (room, None)):
        page = client.get(address(type(row), "delete", row.pk))
        counts = dict(page.context["model_count"])
        assert counts["messages"] == 5
        assert counts.get("bans") == rooms
        assert "word" not in page.text
        assert str(row).replace("&", "&amp;") in page.text


def test_the_number_of_queries_of_the_page_is_constant(
    client: Client, room: Room, messages: list[Message], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(12, exact=False) as few:
        client.get(address(Room, "delete", room.pk))
    Message.objects.bulk_create(
        Message(room=room, seq=seq, event="message", data="1", time=timezone.now()) for seq in range(6, 60)
    )
    with django_assert_num_queries(len(few)):
        client.get(address(Room, "delete", room.pk))


def test_deleting_a_room_sends_a_message(
    client: Client, room: Room, messages: list[Message], sent: list[Any]
) -> None:
    expected = deleted(room)
    client.post(address(Room, "delete", room.pk), {"post": "yes"})
    assert not Room.objects.exists()
    assert not Message.objects.exists()
    assert sent == [expected]


def test_the_action_sends_a_message_for_each_room(client: Client, room: Room, sent: list[Any]) -> None:
    other = Room.objects.create(application=room.application, name="other")
    sent.clear()
    expected = [deleted(room), deleted(other)]
    confirmation = act(client, "delete_selected", room, other)
    assert confirmation.context["model_count"]
    assert Room.objects.count() == 2
    act(client, "delete_selected", room, other, post="yes")
    assert not Room.objects.exists()
    assert sorted(sent, key=lambda message: message.room) == expected


def test_the_action_has_its_own_label(client: Client, room: Room) -> None:
    assert "Close (delete) selected rooms" in client.get(address(Room, "changelist")).text


def test_deleting_an_application_closes_its_rooms(
    client: Client, application: Application, room: Room, sent: list[Any]
) -> None:
    ban = Ban.objects.create(application=application, room=room, guest="Bob")
    sent.clear()
    expected = [deleted(room), ApplicationChanged(application="tea")]
    act(client, "delete_selected", application, post="yes")
    assert not Application.objects.exists()
    assert not Ban.objects.filter(pk=ban.pk).exists()
    assert [message for message in expected if message not in sent] == []


@pytest.mark.parametrize(("permissions", "status"), [(["room"], 403), (["room", "message"], 302)])
def test_deleting_needs_the_permission_for_all_related_models(
    room: Room, messages: list[Message], permissions: list[str], status: int
) -> None:
    user = User.objects.create_user("cleaner", is_staff=True)
    names = [f"{verb}_{model}" for model in permissions for verb in ("view", "delete")]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = Client()
    client.force_login(user)
    assert client.post(address(Room, "delete", room.pk), {"post": "yes"}).status_code == status
    assert Room.objects.exists() is (status == 403)
