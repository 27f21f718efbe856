"""Constraints of the database, and the validation of forms."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from rooms.models import Application, Ban, Message, Mute, RevokedToken, Room, Sequence, StateMessage

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture
def application() -> Application:
    return Application.objects.create(name="chat", title="The chat")


@pytest.fixture
def room(application: Application) -> Room:
    return Room.objects.create(application=application, name="lobby")


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann")


def assert_constraint(make: Any, **fields: Any) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make.objects.create(**fields)


def message_fields(room: Room, **fields: Any) -> dict[str, Any]:
    return {"room": room, "event": "message", "data": '"hi"', "time": timezone.now(), **fields}


def test_rows_have_a_readable_name(application: Application, room: Room, ann: User) -> None:
    assert str(application) == "The chat"
    assert str(Application(name="x")) == "x"
    assert str(room) == "The chat / lobby"
    assert str(Room(application=application, name="x", title="The room")) == "The chat / The room"
    assert str(Ban(application=application, user=ann)) == "ann"
    assert str(Mute(application=application, guest="bob")) == "bob"
    assert str(Message(**message_fields(room, seq=3))) == "3: message"
    assert str(StateMessage(**message_fields(room))) == "message"
    assert str(Sequence(room=room, epoch="e", seq=4)) == "e:4"
    assert str(RevokedToken(login="l")) == "l"


def test_application_names_are_unique_and_fit_into_a_url(application: Application) -> None:
    assert_constraint(Application, name="chat")
    Application(name="Chat-2_b").full_clean()
    for name in ("", "a b", "a/b", "é", "a\n"):
        with pytest.raises(ValidationError):
            Application(name=name).full_clean()


def test_a_group_is_required_where_access_is_by_group() -> None:
    with pytest.raises(ValidationError, match="group"):
        Application(name="x", entry="group").full_clean()


def test_choices_are_constraints_of_the_database(application: Application) -> None:
    assert_constraint(Application, name="x", entry="nobody")
    assert_constraint(Application, name="x", history="elsewhere")
    assert_constraint(Room, application=application, name="x", mode="secret")
    assert_constraint(Room, application=application, name="x", history="elsewhere")
    assert_constraint(Room, application=application, name="x", max_members=0)


def test_room_names_are_unique_and_case_sensitive_in_their_application(
    application: Application, room: Room
) -> None:
    assert_constraint(Room, application=application, name="lobby")
    Room.objects.create(application=application, name="Lobby")
    Room.objects.create(application=Application.objects.create(name="other"), name="lobby")


@pytest.mark.parametrize("name", ["", " lobby", "a\x07", "a\u200b"])
def test_room_names_follow_the_protocol(application: Application, name: str) -> None:
    with pytest.raises(ValidationError):
        Room(application=application, name=name).full_clean()


def test_a_room_has_one_owner(application: Application, ann: User) -> None:
    assert_constraint(Room, application=application, name="x", owner=ann, guest_owner_id="guest-1")
    Room.objects.create(application=application, name="x", owner=ann)
    Room.objects.create(application=application, name="y", guest_owner_id="guest-1")


def test_deleting_the_owner_keeps_the_room(application: Application, ann: User) -> None:
    room = Room.objects.create(application=application, name="x", owner=ann)
    ann.delete()
    room.refresh_from_db()
    assert room.owner is None


def test_a_sequence_number_is_unique_in_a_room(application: Application, room: Room) -> None:
    Message.objects.create(**message_fields(room, seq=1))
    assert_constraint(Message, **message_fields(room, seq=1))
    other = Room.objects.create(application=application, name="other")
    Message.objects.create(**message_fields(other, seq=1))


def test_a_key_is_unique_for_a_sender_in_a_room(room: Room) -> None:
    Message.objects.create(**message_fields(room, seq=1, sender_id="ann", key="k"))
    assert_constraint(Message, **message_fields(room, seq=2, sender_id="ann", key="k"))
    Message.objects.create(**message_fields(room, seq=2, sender_id="bob", key="k"))
    for seq in (3, 4):
        Message.objects.create(**message_fields(room, seq=seq, sender_id="ann"))


def test_a_room_has_one_state_for_an_event(room: Room) -> None:
    StateMessage.objects.create(**message_fields(room, event="topic"))
    assert_constraint(StateMessage, **message_fields(room, event="topic"))


def test_data_is_stored_byte_for_byte(room: Room) -> None:
    text = '{"b": 1.0, "a": "\\u0000\\ud83d\\ude00 é"}'
    Message.objects.create(**message_fields(room, seq=1, data=text))
    assert Message.objects.get().data == text


@pytest.mark.parametrize("kind", [Ban, Mute])
def test_a_restriction_has_either_a_user_or_a_guest(kind: Any, application: Application, ann: User) -> None:
    assert_constraint(kind, application=application)
    assert_constraint(kind, application=application, user=ann, guest="ann")
    for fields in ({}, {"user": ann, "guest": "ann"}):
        with pytest.raises(ValidationError, match="either a user or a guest"):
            kind(application=application, **fields).full_clean()
    kind(application=application, user=ann).full_clean()
    kind(application=application, guest="bob").full_clean()


def test_the_room_of_a_restriction_belongs_to_its_application(room: Room) -> None:
    other = Application.objects.create(name="other")
    with pytest.raises(ValidationError, match="another application"):
        Ban(application=other, room=room, guest="bob").full_clean()


def test_related_rows_are_deleted_with_a_room(application: Application, room: Room) -> None:
    Sequence.objects.create(room=room)
    Message.objects.create(**message_fields(room, seq=1))
    StateMessage.objects.create(**message_fields(room))
    Ban.objects.create(application=application, room=room, guest="bob")
    application.delete()
    for kind in (Room, Sequence, Message, StateMessage, Ban):
        assert not kind.objects.exists()


def test_each_sequence_has_its_own_epoch(application: Application, room: Room) -> None:
    other = Room.objects.create(application=application, name="other")
    one, two = Sequence.objects.create(room=room), Sequence.objects.create(room=other)
    assert one.epoch
    assert one.epoch != two.epoch
    assert one.seq == 0
