"""Applications: namespaces of rooms and of the users connected to them."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from rooms.conf import PROTOCOL_NAMES, get_settings
from rooms.models.common import ExtensionMixin, HistoryPolicy, LimitsMixin, validate_history
from rooms.protocol import validators


class Application(LimitsMixin, ExtensionMixin):
    """A namespace of rooms and of the users connected to it."""

    class Entry(models.TextChoices):
        ANYONE = "anyone", _("Everyone, guests included")
        USERS = "users", _("Signed-in users")
        GROUP = "group", _("Members of a group")

    name = models.CharField(
        _("name"),
        max_length=64,
        unique=True,
        validators=[
            RegexValidator(validators.APPLICATION_NAME, _("Letters, digits, hyphens and underscores."))
        ],
        help_text=_("Part of the WebSocket URL."),
    )
    title = models.CharField(_("title"), max_length=200, blank=True)
    enabled = models.BooleanField(_("enabled"), default=True)
    entry = models.CharField(_("access"), max_length=10, choices=Entry, default=Entry.ANYONE)
    group = models.ForeignKey(
        Group, models.SET_NULL, null=True, blank=True, related_name="+", verbose_name=_("group")
    )
    protocols = models.JSONField(
        _("protocols"),
        default=list,
        blank=True,
        help_text=_("Allowed protocols; none chosen: all of the site."),
    )
    rooms_on_demand = models.BooleanField(
        _("rooms on demand"), default=False, help_text=_("Users create rooms by joining or creating them.")
    )
    rooms_stay = models.BooleanField(
        _("keep rooms on demand"),
        default=False,
        help_text=_("Otherwise a room on demand is deleted when its last member leaves."),
    )
    max_users = models.PositiveIntegerField(
        _("maximum users"), null=True, blank=True, validators=[MinValueValidator(1)]
    )
    max_rooms = models.PositiveIntegerField(_("maximum rooms"), null=True, blank=True)
    max_connections_per_address = models.PositiveIntegerField(
        _("connections per address"), null=True, blank=True, help_text=_("0 is unlimited.")
    )
    logins_per_minute = models.PositiveIntegerField(
        _("logins per minute"),
        null=True,
        blank=True,
        help_text=_("Per address; 0 is unlimited."),
    )
    max_message_bytes = models.PositiveIntegerField(_("maximum message size (bytes)"), null=True, blank=True)
    history = models.CharField(
        _("history"),
        max_length=10,
        choices=HistoryPolicy,
        default=HistoryPolicy.DATABASE,
        validators=[validate_history],
    )
    created = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("application")
        verbose_name_plural = _("applications")
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.CheckConstraint(
                name="rooms_application_entry", condition=Q(entry__in=["anyone", "users", "group"])
            ),
            models.CheckConstraint(
                name="rooms_application_history", condition=Q(history__in=HistoryPolicy.values)
            ),
        ]

    def __str__(self) -> str:
        return self.title or self.name

    def allows_protocol(self, protocol: str) -> bool:
        """Return whether the site and the enabled application allow the protocol."""
        return (
            self.enabled
            and protocol in get_settings().protocols
            and (not self.protocols or protocol in self.protocols)
        )

    def clean(self) -> None:
        super().clean()
        if not isinstance(self.protocols, list) or not set(self.protocols) <= set(PROTOCOL_NAMES):
            raise ValidationError(
                {"protocols": _("Expected a list of protocols of %s.") % ", ".join(PROTOCOL_NAMES)}
            )
        if self.entry == self.Entry.GROUP and self.group_id is None:
            raise ValidationError({"group": _("Choose the group that has access.")})
