"""A saved or deleted row is told to every process: after the commit, under the name that clients know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from rooms import api, signals
from rooms.models import Application, Ban, Mute, Room
from rooms.node.control_messages import ApplicationChanged, RoomChanged
from rooms.protocol.errors import Unavailable

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """What processes are told, without telling them."""
    told: list[Any] = []
    with mock.patch.object(api, "_wait_for", lambda ask: ask(Listening(told))):
        yield told


class Listening:
    """In the place of an engine."""

    def __init__(self, told: list[Any]) -> None:
        self.tell = told.append
        self.services = self

    def call(self, work: None) -> None: ...


@pytest.fixture
def chat(told: list[Any]) -> Application:
    chat = Application.objects.create(name="chat")
    told.clear()
    return chat


@pytest.fixture
def lobby(chat: Application, told: list[Any]) -> Room:
    lobby = Room.objects.create(application=chat, name="lobby")
    told.clear()
    return lobby


def changed(room: Room, name: str = "lobby", listed: bool = True, deleted: bool = False) -> RoomChanged:
    return RoomChanged(application="chat", room=room.pk or 0, name=name, listed=listed, deleted=deleted)


def test_an_application(told: list[Any], chat: Application) -> None:
    chat.title = "Chat"
    chat.save()
    chat.name = "talk"
    chat.save()
    chat.delete()
    assert told == [
        *(ApplicationChanged(application="chat"), ApplicationChanged(application="chat")),
        ApplicationChanged(application="talk"),
    ]


def test_a_new_room_was_in_no_list_before(told: list[Any], chat: Application) -> None:
    room = Room.objects.create(application=chat, name="new")
    assert told == [changed(room, "new", listed=False)]


def test_a_renamed_room_is_told_under_its_old_name(told: list[Any], lobby: Room) -> None:
    lobby.name = "hall"
    lobby.save()
    lobby.save()
    assert told == [changed(lobby, "lobby"), changed(lobby, "hall")]


def test_a_hidden_room_was_listed_before(told: list[Any], lobby: Room) -> None:
    lobby.listed = False
    lobby.save()
    lobby.save(update_fields=["title"])
    assert told == [changed(lobby, listed=True), changed(lobby, listed=False)]


def test_a_deleted_room(told: list[Any], lobby: Room) -> None:
    expected = changed(lobby, deleted=True)
    lobby.delete()
    assert told == [expected]


@pytest.mark.parametrize("kind", [Ban, Mute])
def test_restrictions_tell_of_what_they_are_in(
    told: list[Any], chat: Application, lobby: Room, kind: Any
) -> None:
    everywhere = kind.objects.create(application=chat, guest="bob")
    here = kind.objects.create(application=chat, room=lobby, guest="bob")
    everywhere.delete()
    here.delete()
    of_application, of_room = ApplicationChanged(application="chat"), changed(lobby)
    assert told == [of_application, of_room, of_application, of_room]


@pytest.mark.parametrize("what", ["room", "application", "user"])
def test_what_has_restrictions_can_be_deleted(
    told: list[Any], chat: Application, lobby: Room, what: str
) -> None:
    ann = User.objects.create_user("ann")
    for kind in (Ban, Mute):
        kind.objects.create(application=chat, room=lobby, user=ann)
    told.clear()
    rows: dict[str, Any] = {"room": lobby, "application": chat, "user": ann}
    # Read afresh, as the admin does.
    type(rows[what]).objects.get(pk=rows[what].pk).delete()
    assert not Ban.objects.exists()
    assert told


def test_nothing_is_told_before_the_commit_nor_after_a_rollback(told: list[Any], lobby: Room) -> None:
    with transaction.atomic():
        lobby.title = "Hall"
        lobby.save()
        assert told == []
    assert told == [changed(lobby)]
    with transaction.atomic():
        lobby.title = "Kitchen"
        lobby.save()
        transaction.set_rollback(True)
    assert len(told) == 1


def test_a_notice_that_cannot_be_told_undoes_nothing(lobby: Room, caplog: pytest.LogCaptureFixture) -> None:
    def fail(ask: Any) -> None:
        raise Unavailable("The layer is down.")

    with mock.patch.object(api, "_wait_for", fail):
        lobby.title = "Hall"
        lobby.save()
        with transaction.atomic():
            lobby.delete()
    assert not Room.objects.exists()
    assert caplog.text.count("The layer is down.") >= 2


def test_a_loaded_fixture_is_told_too(told: list[Any], lobby: Room) -> None:
    lobby.save_base(raw=True)
    assert told == [changed(lobby, listed=False)]


def test_listening_twice_tells_once(told: list[Any], lobby: Room) -> None:
    signals.connect()
    lobby.save()
    assert len(told) == 1
