"""Bans, mutes and revoked tokens."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from rooms.models.application import Application
from rooms.models.room import Room
from rooms.protocol import validators


class Restriction(models.Model):
    """Restricts a user or guest in a room or application, possibly until a time."""

    application = models.ForeignKey(
        Application, models.CASCADE, related_name="%(class)ss", verbose_name=_("application")
    )
    room = models.ForeignKey(
        Room,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="%(class)ss",
        verbose_name=_("room"),
        help_text=_("Blank: the whole application."),
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("user"),
    )
    guest = models.CharField(
        _("guest's name"),
        max_length=validators.MAX_NAME_LENGTH,
        blank=True,
        help_text=_("For users without an account."),
    )
    until = models.DateTimeField(_("until"), null=True, blank=True, help_text=_("Blank: permanent."))
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    created = models.DateTimeField(_("created"), auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
        verbose_name=_("created by"),
    )

    class Meta:
        abstract = True
        ordering: ClassVar = ["-created"]

    def __str__(self) -> str:
        return str(self.user or self.guest)

    def clean(self) -> None:
        super().clean()
        if self.room is not None and self.room.application_id != self.application_id:
            raise ValidationError({"room": _("This room belongs to another application.")})


def _one_target(kind: str) -> models.CheckConstraint:
    return models.CheckConstraint(
        name=f"rooms_{kind}_target",
        condition=Q(user__isnull=False, guest="") | (Q(user__isnull=True) & ~Q(guest="")),
        violation_error_message=_("Choose either a user or a guest."),
    )


class Ban(Restriction):
    """The user cannot enter."""

    class Meta(Restriction.Meta):
        abstract = False
        verbose_name = _("ban")
        verbose_name_plural = _("bans")
        constraints: ClassVar = [_one_target("ban")]


class Mute(Restriction):
    """The user receives messages, but cannot send any."""

    class Meta(Restriction.Meta):
        abstract = False
        verbose_name = _("mute")
        verbose_name_plural = _("mutes")
        constraints: ClassVar = [_one_target("mute")]


class RevokedToken(models.Model):
    """A login whose tokens are rejected; kept until the last of them would expire."""

    login = models.CharField(_("login"), max_length=32, primary_key=True)
    expires = models.DateTimeField(_("expires"), db_index=True)

    class Meta:
        verbose_name = _("revoked token")
        verbose_name_plural = _("revoked tokens")

    def __str__(self) -> str:
        return self.login
