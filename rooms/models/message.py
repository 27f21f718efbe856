"""Messages and state of a room, and the counter of sequence numbers."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from rooms.models.common import MAX_USER_ID_LENGTH
from rooms.models.room import Room


def new_epoch() -> str:
    return uuid.uuid4().hex


class Sequence(models.Model):
    """The counter of a room's sequence numbers.

    A row of its own, so that saving a room in the admin cannot reset it. Its lock orders the messages of
    a room; an auto-increment id cannot, because it is assigned before the commit.
    """

    room = models.OneToOneField(Room, models.CASCADE, primary_key=True, related_name="sequence")
    epoch = models.CharField(max_length=32, default=new_epoch)
    seq = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("sequence")
        verbose_name_plural = _("sequences")

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"


class StoredMessage(models.Model):
    """The fields that messages and state share.

    ``data`` is the JSON text as it was sent, and no JSON column, because PostgreSQL's ``jsonb`` reorders
    keys and rejects NUL.
    """

    event = models.CharField(_("event"), max_length=64)
    data = models.TextField(_("data"))
    sender_id = models.CharField(_("sender's id"), max_length=MAX_USER_ID_LENGTH, blank=True)
    sender_name = models.CharField(_("sender"), max_length=255, blank=True)
    sender_guest = models.BooleanField(_("guest"), default=False)
    time = models.DateTimeField(_("time"))
    # The message in the sender's own protocol, as JSON, where it holds more than event and data.
    original = models.TextField(blank=True, editable=False)

    class Meta:
        abstract = True


class Message(StoredMessage):
    """One message of a room's history."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="messages", verbose_name=_("room"))
    seq = models.BigIntegerField(_("sequence number"))
    key = models.CharField(_("key"), max_length=64, null=True, blank=True)  # noqa: DJ001 (NULLs are distinct)
    state = models.BooleanField(_("state"), default=False)

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["room", "seq"], name="rooms_message_seq"),
            models.UniqueConstraint(
                fields=["room", "sender_id", "key"],
                condition=Q(key__isnull=False),
                name="rooms_message_key",
            ),
        ]
        indexes: ClassVar = [
            # Messages with a key may be kept longer than those around them.
            models.Index(fields=["room", "seq"], condition=Q(key__isnull=True), name="rooms_message_keyless")
        ]

    def __str__(self) -> str:
        return f"{self.seq}: {self.event}"


class StateMessage(StoredMessage):
    """The current value of one event name in a room, part of the snapshot."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="state", verbose_name=_("room"))
    seq = models.BigIntegerField(_("sequence number"), null=True, blank=True)

    class Meta:
        verbose_name = _("state")
        verbose_name_plural = _("state")
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["room", "event"], name="rooms_state_event")]

    def __str__(self) -> str:
        return self.event
