"""What was said in a room, in which order, and the state it keeps."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from rooms.models.common import LONGEST_USER_ID
from rooms.models.room import Room


def new_epoch() -> str:
    return uuid.uuid4().hex


class Sequence(models.Model):
    """A room's counter. It is a row of its own so that saving a room in the admin can never set the
    counter back, and its lock is what puts the messages of a room in one order (never an
    auto-increment id: those are handed out before the commit)."""

    room = models.OneToOneField(Room, models.CASCADE, primary_key=True, related_name="sequence")
    epoch = models.CharField(max_length=32, default=new_epoch)
    seq = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("sequence")
        verbose_name_plural = _("sequences")

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"


class Said(models.Model):
    """Who said what and when: the part that messages and state have in common.

    ``data`` is the JSON text as it was sent. It is text and not a JSON column, because PostgreSQL's
    ``jsonb`` would reorder keys and refuse NUL.
    """

    event = models.CharField(_("event"), max_length=64)
    data = models.TextField(_("data"))
    sender_id = models.CharField(_("sender's id"), max_length=LONGEST_USER_ID, blank=True)
    sender_name = models.CharField(_("sender"), max_length=255, blank=True)
    sender_guest = models.BooleanField(_("guest"), default=False)
    time = models.DateTimeField(_("time"))
    # What the sender's own protocol said beyond event and data, as JSON.
    original = models.TextField(blank=True, editable=False)

    class Meta:
        abstract = True


class Message(Said):
    """One message of a room's history."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="messages", verbose_name=_("room"))
    seq = models.BigIntegerField(_("number"))
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
            # Messages with a key may stay when others before and after them go.
            models.Index(fields=["room", "seq"], condition=Q(key__isnull=True), name="rooms_message_keyless")
        ]

    def __str__(self) -> str:
        return f"{self.seq}: {self.event}"


class StateMessage(Said):
    """The current value that a room keeps for one event name, handed to everyone who joins."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="state", verbose_name=_("room"))
    seq = models.BigIntegerField(_("number"), null=True, blank=True)

    class Meta:
        verbose_name = _("state")
        verbose_name_plural = _("state")
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["room", "event"], name="rooms_state_event")]

    def __str__(self) -> str:
        return self.event
