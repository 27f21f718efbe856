"""Saved and deleted rows send a control message after the commit."""

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

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def sent() -> Iterator[list[Any]]:
    """The control messages, which are recorded and not sent."""
    sent: list[Any] = []
    with mock.patch.object(api, "_call", lambda ask: ask(RecordingTarget(sent))):
        yield sent


class RecordingTarget:
    """Replaces the services of the node."""

    def __init__(self, sent: list[Any]) -> None:
        self.send_control = sent.append


@pytest.fixture
def chat(sent: list[Any]) -> Application:
    chat = Application.objects.create(name="chat")
    sent.clear()
    return chat


@pytest.fixture
def lobby(chat: Application, sent: list[Any]) -> Room:
    lobby = Room.objects.create(application=chat, name="lobby")
    sent.clear()
    return lobby


def changed(room: Room, name: str = "lobby", listed: bool = True, deleted: bool = False) -> RoomChanged:
    return RoomChanged(application="chat", room=room.pk or 0, name=name, listed=listed, deleted=deleted)


def test_an_application_is_sent_with_its_old_name(sent: list[Any], chat: Application) -> None:
    chat.title = "Chat"
    chat.save()
    chat.name = "talk"
    chat.save()
    chat.delete()
    assert sent == [
        *(ApplicationChanged(application="chat"), ApplicationChanged(application="chat")),
        ApplicationChanged(application="talk"),
    ]


def test_a_new_room_is_sent_as_not_listed_before(sent: list[Any], chat: Application) -> None:
    room = Room.objects.create(application=chat, name="new")
    assert sent == [changed(room, "new", listed=False)]


def test_a_renamed_room_is_told_under_its_old_name(sent: list[Any], lobby: Room) -> None:
    lobby.name = "hall"
    lobby.save()
    lobby.save()
    assert sent == [changed(lobby, "lobby"), changed(lobby, "hall")]


def test_a_hidden_room_is_sent_as_listed_before(sent: list[Any], lobby: Room) -> None:
    lobby.listed = False
    lobby.save()
    lobby.save(update_fields=["title"])
    assert sent == [changed(lobby, listed=True), changed(lobby, listed=False)]


def test_a_deleted_room_is_sent_as_deleted(sent: list[Any], lobby: Room) -> None:
    expected = changed(lobby, deleted=True)
    lobby.delete()
    assert sent == [expected]


@pytest.mark.parametrize("kind", [Ban, Mute])
def test_a_restriction_sends_its_room_or_application(
    sent: list[Any], chat: Application, lobby: Room, kind: Any
) -> None:
    everywhere = kind.objects.create(application=chat, guest="bob")
    here = kind.objects.create(application=chat, room=lobby, guest="bob")
    everywhere.delete()
    here.delete()
    of_application, of_room = ApplicationChanged(application="chat"), changed(lobby)
    assert sent == [of_application, of_room, of_application, of_room]


@pytest.mark.parametrize("what", ["room", "application", "user"])
def test_rows_with_restrictions_can_be_deleted(
    sent: list[Any], chat: Application, lobby: Room, what: str
) -> None:
    ann = User.objects.create_user("ann")
    for kind in (Ban, Mute):
        kind.objects.create(application=chat, room=lobby, user=ann)
    sent.clear()
    rows: dict[str, Any] = {"room": lobby, "application": chat, "user": ann}
    # Read again, as the admin does.
    type(rows[what]).objects.get(pk=rows[what].pk).delete()
    assert not Ban.objects.exists()
    assert sent


def test_nothing_is_sent_before_the_commit_or_after_a_rollback(sent: list[Any], lobby: Room) -> None:
    with transaction.atomic():
        lobby.title = "Hall"
        lobby.save()
        assert sent == []
    assert sent == [changed(lobby)]
    with transaction.atomic():
        lobby.title = "Kitchen"
        lobby.save()
        transaction.set_rollback(True)
    assert len(sent) == 1


def test_a_message_that_cannot_be_sent_does_not_undo_the_change(
    lobby: Room, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(ask: Any) -> None:
        raise Unavailable("The layer is down.")

    with mock.patch.object(api, "_call", fail):
        lobby.title = "Hall"
        lobby.save()
        with transaction.atomic():
            lobby.delete()
    assert not Room.objects.exists()
    assert caplog.text.count("The layer is down.") >= 2


def test_a_loaded_fixture_is_sent(sent: list[Any], lobby: Room) -> None:
    lobby.save_base(raw=True)
    assert sent == [changed(lobby, listed=False)]


def test_connecting_twice_sends_once(sent: list[Any], lobby: Room) -> None:
    signals.connect()
    lobby.save()
    assert len(sent) == 1
