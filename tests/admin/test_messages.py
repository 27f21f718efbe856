"""Messages and state in the admin: read and deleted, never written."""

from __future__ import annotations

import pytest
from django.db.models import Model
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from rooms.models import Application, Message, Room, StateMessage
from tests.admin.pages import act, address


def say(room: Room, model: type[Model] = Message, **fields: object) -> Model:
    said = {"event": "message", "data": '"<hello>"', "seq": 1, "time": timezone.now(), **fields}
    return model._default_manager.create(room=room, **said)


@pytest.fixture(params=[Message, StateMessage])
def said(request: pytest.FixtureRequest, room: Room) -> Model:
    return say(room, request.param, sender_id="7", sender_name="Ann", sender_guest=True)


def test_it_is_read(client: Client, said: Model) -> None:
    for where in (address(type(said), "changelist"), address(type(said), "change", said.pk)):
        text = client.get(where).text
        assert "Ann (guest)" in text
        assert "&quot;&lt;hello&gt;&quot;" in text
        assert "Tea &amp; cake / lobby" in text


def test_it_is_not_written(client: Client, said: Model) -> None:
    model = type(said)
    assert client.get(address(model, "add")).status_code == 403
    assert client.post(address(model, "change", said.pk), {"data": '"other"'}).status_code == 403
    said.refresh_from_db()
    assert said.data == '"<hello>"'


def test_it_is_deleted(client: Client, said: Model) -> None:
    act(client, "delete_selected", said, post="yes")
    assert not type(said)._default_manager.exists()


def test_what_the_server_said(client: Client, room: Room) -> None:
    say(room)
    assert "the server" in client.get(address(Message, "changelist")).text


def test_a_long_message_is_short_in_the_list_and_whole_on_its_page(client: Client, room: Room) -> None:
    message = say(room, data='"' + "x" * 5000 + '"')
    assert "x" * 80 not in client.get(address(Message, "changelist")).text
    assert "x" * 5000 in client.get(address(Message, "change", message.pk)).text


@pytest.mark.parametrize("model", [Message, StateMessage])
def test_the_list_asks_as_much_for_many_as_for_few(
    client: Client, room: Room, model: type[Model], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    say(room, model)
    with django_assert_num_queries(8, exact=False) as few:
        client.get(address(model, "changelist"))
    for number in range(20):
        application = Application.objects.create(name=f"application-{number}")
        say(Room.objects.create(application=application, name="room"), model)
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
    say(room)
    say(room, seq=2, data="2", state=True)
    elsewhere = Application.objects.create(name="elsewhere")
    say(Room.objects.create(application=elsewhere, name="room"), data="3")
    if "application" in query:
        query = {"room__application__id__exact": str(elsewhere.pk)}
    assert client.get(address(Message, "changelist"), query).context["cl"].result_count == found
