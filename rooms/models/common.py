"""Abstract models and validators that applications and rooms share."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from rooms.conf import get_settings

# The id of a user is a primary key of any kind as text, or a guest's random id.
MAX_USER_ID_LENGTH = 255


class HistoryPolicy(models.TextChoices):
    """The backend that stores the messages of a room."""

    DATABASE = "database", _("In the database")
    MEMORY = "memory", _("In memory, until the process ends")
    REDIS = "redis", _("In Redis")
    NONE = "none", _("Nowhere")


def validate_history(policy: str) -> None:
    """Validate that this site has a backend for the policy. Raises ValidationError."""
    backends = get_settings().histories
    if policy not in backends:
        raise ValidationError(
            _('ROOMS["HISTORIES"] has no backend %(policy)s. Choose one of %(backends)s.'),
            params={"policy": policy, "backends": ", ".join(backends)},
        )


class LimitsMixin(models.Model):
    """Limits of an application, which a room may override; blank inherits."""

    history_size = models.PositiveIntegerField(
        _("messages kept"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("Number of newest messages that a room keeps."),
    )
    history_ttl = models.PositiveIntegerField(
        _("time to keep messages (seconds)"), null=True, blank=True, validators=[MinValueValidator(1)]
    )
    leave_grace = models.PositiveIntegerField(
        _("grace period (seconds)"),
        null=True,
        blank=True,
        help_text=_("Time until a lost connection counts as a leave."),
    )
    request_rate = models.PositiveIntegerField(
        _("requests per second"),
        null=True,
        blank=True,
        help_text=_("Per connection; 0 is unlimited."),
    )
    request_burst = models.PositiveIntegerField(_("burst of requests"), null=True, blank=True)

    class Meta:
        abstract = True


class ExtensionMixin(models.Model):
    """The chosen extension and its settings."""

    extension = models.CharField(
        _("extension"),
        max_length=100,
        blank=True,
        help_text=_("Code of this site that handles events. Its settings appear after saving."),
    )
    extension_settings = models.JSONField(_("extension settings"), default=dict, blank=True)

    class Meta:
        abstract = True
