"""Rooms: places in an application where members hear each other."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from rooms.models.application import Application
from rooms.models.common import LONGEST_USER_ID, Extended, HistoryPolicy, Limits, check_history
from rooms.protocol import validators
from rooms.protocol.errors import BadRequest

# Foreign protocols allow longer names than the native one does (64).
LONGEST_ROOM_NAME = 128


def check_room_name(name: str) -> None:
    """The native protocol's rule for room names, as a model validator."""
    try:
        validators.room_name(name)
    except BadRequest as error:
        raise ValidationError(error.message) from None


class Room(Limits, Extended):
    """A place in an application where members hear each other."""

    class Mode(models.TextChoices):
        OPEN = "open", _("Every member speaks")
        BROADCAST = "broadcast", _("Only the owner speaks")

    application = models.ForeignKey(
        Application, models.CASCADE, related_name="rooms", verbose_name=_("application")
    )
    name = models.CharField(_("name"), max_length=LONGEST_ROOM_NAME, validators=[check_room_name])
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
    guest_owner_id = models.CharField(max_length=LONGEST_USER_ID, blank=True, editable=False)
    guest_owner_name = models.CharField(
        _("owner (guest)"), max_length=validators.LONGEST_NAME, blank=True, editable=False
    )
    max_members = models.PositiveIntegerField(
        _("maximum of members"), null=True, blank=True, validators=[MinValueValidator(1)]
    )
    password = models.CharField(_("password"), max_length=200, blank=True, editable=False)
    listed = models.BooleanField(
        _("listed"), default=True, help_text=_("Hidden rooms are entered by those who know the name.")
    )
    persistent = models.BooleanField(
        _("persistent"), default=True, help_text=_("Otherwise the room goes with its last member.")
    )
    closes_with_owner = models.BooleanField(
        _("closes with its owner"),
        default=False,
        help_text=_("The room goes when its owner does, after the grace period."),
    )
    history = models.CharField(
        _("history"), max_length=10, choices=HistoryPolicy, blank=True, validators=[check_history]
    )
    created = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("room")
        verbose_name_plural = _("rooms")
        ordering: ClassVar = ["application", "name"]
        permissions: ClassVar = [("moderate_room", _("Can moderate rooms"))]
        constraints: ClassVar = [
            # Also the index by which rooms are found and listed.
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
            # The sweep of empty rooms asks for these and no others.
            models.Index(fields=["created"], condition=Q(persistent=False), name="rooms_room_passing"),
        ]

    def __str__(self) -> str:
        # Most applications have a lobby.
        return f"{self.application} / {self.title or self.name}"
