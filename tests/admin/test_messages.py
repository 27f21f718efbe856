"""The admin of messages and state: view and delete, no edit."""

from __future__ import annotations

import pytest
from django.db.models import Model
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from rooms.models import Application, Message, Room, StateMessage
from tests.admin.pages import act, address


def store(room: Room, model: type[Model] = Message, **fields: object) -> Model:
    values = {"event": "message", "data": '"<hello>"', "seq": 1, "time": timezone.now(), **fields}
    return model._default_manager.create(room=room, **values)


@pytest.fixture(params=[Message, StateMessage])
def message(request: pytest.FixtureRequest, room: Room) -> Model:
    return store(room, request.param, sender_id="7", sender_name="Ann", sender_guest=True)


def test_a_message_is_shown(client: Client, message: Model) -> None:
    for where in (address(type(message), "changelist"), address(type(message), "change", message.pk)):
        text = client.get(where).text
        assert "Ann (guest)" in text
        assert "&quot;&lt;hello&gt;&quot;" in text
        assert "Tea &amp; cake / lobby" in text


def test_a_message_cannot_be_edited(client: Client, message: Model) -> None:
    model = type(message)
    assert client.get(address(model, "add")).status_code == 403
    assert client.post(address(model, "change", message.pk), {"data": '"other"'}).status_code == 403
    message.refresh_from_db()
    assert message.data == '"<hello>"'


def test_a_message_can_be_deleted(client: Client, message: Model) -> None:
    act(client, "delete_selected", message, post="yes")
    assert not type(message)._default_manager.exists()


def test_a_message_without_a_sender_is_from_the_server(client: Client, room: Room) -> None:
    store(room)
    assert "the server" in client.get(address(Message, "changelist")).text


def test_a_long_message_is_truncated_in_the_list_only(client: Client, room: Room) -> None:
    message = store(room, data='"' + "x" * 5000 + '"')
    assert "x" * 80 not in client.get(address(Message, "changelist")).text
    assert "x" * 5000 in client.get(address(Message, "change", message.pk)).text


@pytest.mark.parametrize("model", [Message, StateMessage])
def test_the_number_of_queries_of_the_list_is_constant(
    client: Client, room: Room, model: type[Model], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    store(room, model)
    with django_assert_num_queries(8, exact=False) as few:
        client.get(address(model, "changelist"))
    for number in range(20):
        application = Application.objects.create(name=f"application-{number}")
        store(Room.objects.create(application=application, name="room"), model)
    with django_assert_num_queries(len(few)):
        client.get(address(model, "changelist"))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"q": "hello"}, 1),
        ({"q": "lobby"}, 2),
        ({"q": "nothing"}, 0),
        ({"state__exact": "1"}, 1),
        ({"room__id__exact": "0"}, 0),
        ({"application": "elsewhere"}, 1),
    ],
)
def test_search_and_filters(client: Client, room: Room, query: dict[str, str], found: int) -> None:
    store(room)
    store(room, seq=2, data="2", state=True)
    elsewhere = Application.objects.create(name="elsewhere")
    store(Room.objects.create(application=elsewhere, name="room"), data="3")
    if "application" in query:
        query = {"room__application__id__exact": str(elsewhere.pk)}
    assert client.get(address(Message, "changelist"), query).context["cl"].result_count == found
