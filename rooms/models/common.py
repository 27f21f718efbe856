"""What applications and rooms have in common."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from rooms.conf import get_settings

# The longest text that identifies a user: a primary key of any kind, or a guest's random id.
LONGEST_USER_ID = 255


class HistoryPolicy(models.TextChoices):
    """Where a room's messages are kept."""

    DATABASE = "database", _("In the database")
    MEMORY = "memory", _("In memory, until the process ends")
    REDIS = "redis", _("In Redis")
    NONE = "none", _("Nowhere")


def check_history(policy: str) -> None:
    """Validate that this site has a backend for the policy. Raises ValidationError."""
    backends = get_settings().histories
    if policy not in backends:
        raise ValidationError(
            _('ROOMS["HISTORIES"] has no backend %(policy)s. Choose one of %(backends)s.'),
            params={"policy": policy, "backends": ", ".join(backends)},
        )


class Limits(models.Model):
    """Limits that an application sets and a room may override; blank inherits."""

    history_size = models.PositiveIntegerField(
        _("messages kept"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("The newest so many messages of a room."),
    )
    history_ttl = models.PositiveIntegerField(
        _("kept for (seconds)"), null=True, blank=True, validators=[MinValueValidator(1)]
    )
    leave_grace = models.PositiveIntegerField(
        _("grace period (seconds)"),
        null=True,
        blank=True,
        help_text=_("How long a dropped connection still counts as a member."),
    )
    request_rate = models.PositiveIntegerField(
        _("requests per second"),
        null=True,
        blank=True,
        help_text=_("Of one connection; 0 is without limit."),
    )
    request_burst = models.PositiveIntegerField(_("burst of requests"), null=True, blank=True)

    class Meta:
        abstract = True


class Extended(models.Model):
    """Something that an extension may be put on."""

    extension = models.CharField(
        _("extension"),
        max_length=100,
        blank=True,
        help_text=_("Code of this site that answers events here. Its settings appear after saving."),
    )
    extension_settings = models.JSONField(_("settings of the extension"), default=dict, blank=True)

    class Meta:
        abstract = True
