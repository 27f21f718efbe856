"""What the database itself holds: constraints, and what a form is told before it comes to that."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from rooms.models import Application, Ban, Message, Mute, RevokedToken, Room, Sequence, StateMessage

pytestmark = pytest.mark.django_db


@pytest.fixture
def application() -> Application:
    return Application.objects.create(name="chat", title="The chat")


@pytest.fixture
def room(application: Application) -> Room:
    return Room.objects.create(application=application, name="lobby")


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann")


def refused_by_database(make: Any, **fields: Any) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make.objects.create(**fields)


def said(room: Room, **fields: Any) -> dict[str, Any]:
    return {"room": room, "event": "message", "data": '"hi"', "time": timezone.now(), **fields}


def test_they_show_what_people_call_them(application: Application, room: Room, ann: User) -> None:
    assert str(application) == "The chat"
    assert str(Application(name="x")) == "x"
    assert str(room) == "The chat / lobby"
    assert str(Room(application=application, name="x", title="The room")) == "The chat / The room"
    assert str(Ban(application=application, user=ann)) == "ann"
    assert str(Mute(application=application, guest="bob")) == "bob"
    assert str(Message(**said(room, seq=3))) == "3: message"
    assert str(StateMessage(**said(room))) == "message"
    assert str(Sequence(room=room, epoch="e", seq=4)) == "e:4"
    assert str(RevokedToken(login="l")) == "l"


def test_application_names_are_unique_and_fit_into_an_address(application: Application) -> None:
    refused_by_database(Application, name="chat")
    Application(name="Chat-2_b").full_clean()
    for name in ("", "a b", "a/b", "é", "a\n"):
        with pytest.raises(ValidationError):
            Application(name=name).full_clean()


def test_a_group_has_to_be_chosen_where_a_group_may_enter() -> None:
    with pytest.raises(ValidationError, match="group"):
        Application(name="x", entry="group").full_clean()


def test_the_choices_are_held_by_the_database(application: Application) -> None:
    refused_by_database(Application, name="x", entry="nobody")
    refused_by_database(Application, name="x", history="elsewhere")
    refused_by_database(Room, application=application, name="x", mode="secret")
    refused_by_database(Room, application=application, name="x", history="elsewhere")
    refused_by_database(Room, application=application, name="x", max_members=0)


def test_room_names_are_unique_in_their_application_and_compared_exactly(
    application: Application, room: Room
) -> None:
    refused_by_database(Room, application=application, name="lobby")
    Room.objects.create(application=application, name="Lobby")
    Room.objects.create(application=Application.objects.create(name="other"), name="lobby")


@pytest.mark.parametrize("name", ["", " lobby", "a\x07", "a\u200b"])
def test_room_names_are_those_of_the_protocol(application: Application, name: str) -> None:
    with pytest.raises(ValidationError):
        Room(application=application, name=name).full_clean()


def test_a_room_has_one_owner(application: Application, ann: User) -> None:
    refused_by_database(Room, application=application, name="x", owner=ann, guest_owner_id="guest-1")
    Room.objects.create(application=application, name="x", owner=ann)
    Room.objects.create(application=application, name="y", guest_owner_id="guest-1")


def test_an_owner_who_is_deleted_leaves_the_room(application: Application, ann: User) -> None:
    room = Room.objects.create(application=application, name="x", owner=ann)
    ann.delete()
    room.refresh_from_db()
    assert room.owner is None


def test_a_number_is_given_once_in_a_room(application: Application, room: Room) -> None:
    Message.objects.create(**said(room, seq=1))
    refused_by_database(Message, **said(room, seq=1))
    other = Room.objects.create(application=application, name="other")
    Message.objects.create(**said(other, seq=1))


def test_a_key_is_used_once_by_a_sender_in_a_room(room: Room) -> None:
    Message.objects.create(**said(room, seq=1, sender_id="ann", key="k"))
    refused_by_database(Message, **said(room, seq=2, sender_id="ann", key="k"))
    Message.objects.create(**said(room, seq=2, sender_id="bob", key="k"))
    for seq in (3, 4):
        Message.objects.create(**said(room, seq=seq, sender_id="ann"))


def test_a_room_has_one_value_for_an_event(room: Room) -> None:
    StateMessage.objects.create(**said(room, event="topic"))
    refused_by_database(StateMessage, **said(room, event="topic"))


def test_data_is_kept_letter_for_letter(room: Room) -> None:
    text = '{"b": 1.0, "a": "\\u0000\\ud83d\\ude00 é"}'
    Message.objects.create(**said(room, seq=1, data=text))
    assert Message.objects.get().data == text


@pytest.mark.parametrize("kind", [Ban, Mute])
def test_a_restriction_is_of_a_user_or_of_a_guest(kind: Any, application: Application, ann: User) -> None:
    refused_by_database(kind, application=application)
    refused_by_database(kind, application=application, user=ann, guest="ann")
    for fields in ({}, {"user": ann, "guest": "ann"}):
        with pytest.raises(ValidationError, match="either a user or a guest"):
            kind(application=application, **fields).full_clean()
    kind(application=application, user=ann).full_clean()
    kind(application=application, guest="bob").full_clean()


def test_a_restriction_is_in_a_room_of_its_own_application(room: Room) -> None:
    other = Application.objects.create(name="other")
    with pytest.raises(ValidationError, match="another application"):
        Ban(application=other, room=room, guest="bob").full_clean()


def test_everything_goes_with_its_room(application: Application, room: Room) -> None:
    Sequence.objects.create(room=room)
    Message.objects.create(**said(room, seq=1))
    StateMessage.objects.create(**said(room))
    Ban.objects.create(application=application, room=room, guest="bob")
    application.delete()
    for kind in (Room, Sequence, Message, StateMessage, Ban):
        assert not kind.objects.exists()


def test_every_sequence_has_an_epoch_of_its_own(application: Application, room: Room) -> None:
    other = Room.objects.create(application=application, name="other")
    one, two = Sequence.objects.create(room=room), Sequence.objects.create(room=other)
    assert one.epoch
    assert one.epoch != two.epoch
    assert one.seq == 0
