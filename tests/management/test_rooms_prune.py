"""The command that deletes what is kept no longer."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone

from rooms.models import Application, Message, RevokedToken, Room, Sequence

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def room() -> Room:
    """It keeps two messages and has five; one of two logins has expired."""
    application = Application.objects.create(name="chat", history_size=2)
    room = Room.objects.create(application=application, name="lobby")
    Sequence.objects.update_or_create(room=room, defaults={"seq": 5})
    now = timezone.now()
    for seq in range(1, 6):
        Message.objects.create(room=room, seq=seq, event="message", data="1", time=now)
    RevokedToken.objects.create(login="over", expires=now - timedelta(hours=1))
    RevokedToken.objects.create(login="not yet", expires=now + timedelta(hours=1))
    return room


def prune(*options: str) -> str:
    told = StringIO()
    call_command("rooms_prune", *options, stdout=told)
    return told.getvalue().strip()


def test_it_deletes_what_is_kept_no_longer_and_says_so(room: Room) -> None:
    assert prune() == "Deleted 3 messages and 1 ended logins."
    assert list(room.messages.order_by("seq").values_list("seq", flat=True)) == [4, 5]
    assert [each.login for each in RevokedToken.objects.all()] == ["not yet"]
    assert prune() == "Deleted 0 messages and 0 ended logins."


def test_a_dry_run_only_says_what_there_is(room: Room) -> None:
    assert prune("--dry-run") == "Would delete 3 messages and 1 ended logins."
    assert room.messages.count() == 5
    assert RevokedToken.objects.count() == 2
