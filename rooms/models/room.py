"""Rooms: their members receive each other's messages."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from rooms.models.application import Application
from rooms.models.common import (
    MAX_USER_ID_LENGTH,
    ExtensionMixin,
    HistoryPolicy,
    LimitsMixin,
    validate_history,
)
from rooms.protocol import validators
from rooms.protocol.errors import BadRequest

# The protocols of other servers allow longer names than the native one (64).
MAX_ROOM_NAME_LENGTH = 128


def validate_room_name(name: str) -> None:
    """Validate a room name by the rule of the protocol. Raises ValidationError."""
    try:
        validators.room_name(name)
    except BadRequest as error:
        raise ValidationError(error.message) from None


class Room(LimitsMixin, ExtensionMixin):
    """A room of an application; its members receive each other's messages."""

    class Mode(models.TextChoices):
        OPEN = "open", _("All members send")
        BROADCAST = "broadcast", _("Only the owner sends")

    application = models.ForeignKey(
        Application, models.CASCADE, related_name="rooms", verbose_name=_("application")
    )
    name = models.CharField(_("name"), max_length=MAX_ROOM_NAME_LENGTH, validators=[validate_room_name])
    title = models.CharField(_("title"), max_length=200, blank=True)
    mode = models.CharField(_("mode"), max_length=10, choices=Mode, default=Mode.OPEN)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("owner"),
    )
    guest_owner_id = models.CharField(max_length=MAX_USER_ID_LENGTH, blank=True, editable=False)
    guest_owner_name = models.CharField(
        _("owner (guest)"), max_length=validators.MAX_NAME_LENGTH, blank=True, editable=False
    )
    max_members = models.PositiveIntegerField(
        _("maximum members"), null=True, blank=True, validators=[MinValueValidator(1)]
    )
    password = models.CharField(_("password"), max_length=200, blank=True, editable=False)
    listed = models.BooleanField(
        _("listed"), default=True, help_text=_("A room that is not listed can still be joined by its name.")
    )
    persistent = models.BooleanField(
        _("persistent"),
        default=True,
        help_text=_("Otherwise the room is deleted when its last member leaves."),
    )
    closes_with_owner = models.BooleanField(
        _("closes with its owner"),
        default=False,
        help_text=_("The room is deleted when its owner leaves, after the grace period."),
    )
    history = models.CharField(
        _("history"), max_length=10, choices=HistoryPolicy, blank=True, validators=[validate_history]
    )
    created = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("room")
        verbose_name_plural = _("rooms")
        ordering: ClassVar = ["application", "name"]
        permissions: ClassVar = [("moderate_room", _("Can moderate rooms"))]
        constraints: ClassVar = [
            # Also the index of look-ups and lists.
            models.UniqueConstraint(fields=["application", "name"], name="rooms_room_name"),
            models.CheckConstraint(name="rooms_room_mode", condition=Q(mode__in=["open", "broadcast"])),
            models.CheckConstraint(
                name="rooms_room_history", condition=Q(history__in=["", *HistoryPolicy.values])
            ),
            models.CheckConstraint(name="rooms_room_max_members", condition=Q(max_members__gte=1)),
            models.CheckConstraint(
                name="rooms_room_one_owner", condition=Q(owner__isnull=True) | Q(guest_owner_id="")
            ),
        ]
        indexes: ClassVar = [
            # For the sweep of empty rooms.
            models.Index(fields=["created"], condition=Q(persistent=False), name="rooms_room_passing"),
        ]

    def __str__(self) -> str:
        # Rooms of several applications often have the same name.
        return f"{self.application} / {self.title or self.name}"
