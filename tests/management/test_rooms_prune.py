"""``manage.py rooms_prune``: expired messages and revoked tokens are deleted."""

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
    """A room that keeps two of its five messages, and two tokens, one expired."""
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
    output = StringIO()
    call_command("rooms_prune", *options, stdout=output)
    return output.getvalue().strip()


def test_expired_rows_are_deleted_and_counted(room: Room) -> None:
    assert prune() == "Deleted 3 messages and 1 revoked tokens."
    assert list(room.messages.order_by("seq").values_list("seq", flat=True)) == [4, 5]
    assert [each.login for each in RevokedToken.objects.all()] == ["not yet"]
    assert prune() == "Deleted 0 messages and 0 revoked tokens."


def test_dry_run_counts_and_deletes_nothing(room: Room) -> None:
    assert prune("--dry-run") == "Would delete 3 messages and 1 revoked tokens."
    assert room.messages.count() == 5
    assert RevokedToken.objects.count() == 2
