"""What outlives a process: applications, rooms, their messages, and who may not come in.

A blank field of a room means "as its application says"; a blank limit of an application means "as
``settings.ROOMS`` says". ``catalogue.py`` resolves these into plain values for the engine; nothing
on the way of a message reads a model.
"""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from rooms import names
from rooms.errors import BadRequest

# Foreign protocols allow longer names than the native one does (64).
LONGEST_ROOM_NAME = 128
# The longest text that identifies a user: a primary key of any kind, or a guest's random id.
LONGEST_USER_ID = 64


def check_room_name(name: str) -> None:
    """The native protocol's rule for room names, as a model validator."""
    try:
        names.room_name(name)
    except BadRequest as error:
        raise ValidationError(error.message) from None


class HistoryPolicy(models.TextChoices):
    """Where a room's messages are kept."""

    DATABASE = "database", _("In the database")
    MEMORY = "memory", _("In memory, until the process ends")
    NONE = "none", _("Nowhere")


class Limits(models.Model):
    """Limits that an application sets and a room may override; blank inherits."""

    history_count = models.PositiveIntegerField(
        _("messages kept"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("The newest so many messages of a room."),
    )
    history_seconds = models.PositiveIntegerField(
        _("kept for (seconds)"), null=True, blank=True, validators=[MinValueValidator(1)]
    )
    grace_seconds = models.PositiveIntegerField(
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


class Application(Limits, Extended):
    """A namespace of rooms and of the users connected to it."""

    class Entry(models.TextChoices):
        ANYONE = "anyone", _("Anyone with a name")
        USERS = "users", _("Signed-in users")
        GROUP = "group", _("Members of a group")

    name = models.CharField(
        _("name"),
        max_length=64,
        unique=True,
        validators=[RegexValidator(r"^[-a-zA-Z0-9_]+\Z", _("Letters, digits, hyphens and underscores."))],
        help_text=_("Part of the socket's address."),
    )
    title = models.CharField(_("title"), max_length=200, blank=True)
    enabled = models.BooleanField(_("enabled"), default=True)
    entry = models.CharField(_("who may enter"), max_length=10, choices=Entry, default=Entry.ANYONE)
    group = models.ForeignKey(
        Group, models.SET_NULL, null=True, blank=True, related_name="+", verbose_name=_("group")
    )
    rooms_on_demand = models.BooleanField(
        _("rooms on demand"), default=False, help_text=_("Users may make rooms, by joining or creating them.")
    )
    rooms_stay = models.BooleanField(
        _("rooms on demand stay"), default=False, help_text=_("Otherwise they go with their last member.")
    )
    max_users = models.PositiveIntegerField(
        _("most users"), null=True, blank=True, validators=[MinValueValidator(1)]
    )
    max_rooms = models.PositiveIntegerField(_("most rooms"), null=True, blank=True)
    max_connections_per_address = models.PositiveIntegerField(
        _("connections per address"), null=True, blank=True, help_text=_("0 is without limit.")
    )
    logins_per_minute = models.PositiveIntegerField(
        _("logins per minute"),
        null=True,
        blank=True,
        help_text=_("From one address; 0 is without limit."),
    )
    max_message_bytes = models.PositiveIntegerField(_("largest message (bytes)"), null=True, blank=True)
    history = models.CharField(
        _("history"), max_length=10, choices=HistoryPolicy, default=HistoryPolicy.DATABASE
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
                name="rooms_application_history", condition=Q(history__in=["database", "memory", "none"])
            ),
        ]

    def __str__(self) -> str:
        return self.title or self.name

    def clean(self) -> None:
        super().clean()
        if self.entry == self.Entry.GROUP and self.group_id is None:
            raise ValidationError({"group": _("Choose the group whose members may enter.")})


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
        _("owner (guest)"), max_length=names.LONGEST_NAME, blank=True, editable=False
    )
    max_members = models.PositiveIntegerField(
        _("most members"), null=True, blank=True, validators=[MinValueValidator(1)]
    )
    password = models.CharField(_("password"), max_length=200, blank=True, editable=False)
    listed = models.BooleanField(
        _("listed"), default=True, help_text=_("Hidden rooms are entered by those who know the name.")
    )
    persistent = models.BooleanField(
        _("persistent"), default=True, help_text=_("Otherwise the room goes with its last member.")
    )
    history = models.CharField(_("history"), max_length=10, choices=HistoryPolicy, blank=True)
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
                name="rooms_room_history", condition=Q(history__in=["", "database", "memory", "none"])
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
        return self.title or self.name


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
    sender_name = models.CharField(_("sender"), max_length=150, blank=True)
    sender_guest = models.BooleanField(_("guest"), default=False)
    time = models.DateTimeField(_("time"))

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
        indexes: ClassVar = [models.Index(fields=["room", "time"], name="rooms_message_time")]

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


class Restriction(models.Model):
    """Somebody may not do something, in a room or in a whole application, until a time or for good."""

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
        max_length=names.LONGEST_NAME,
        blank=True,
        help_text=_("For those without an account."),
    )
    until = models.DateTimeField(_("until"), null=True, blank=True, help_text=_("Blank: for good."))
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    created = models.DateTimeField(_("created"), auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
        verbose_name=_("by"),
    )

    class Meta:
        abstract = True
        ordering: ClassVar = ["-created"]

    def __str__(self) -> str:
        return str(self.user or self.guest)

    def clean(self) -> None:
        super().clean()
        if (self.user_id is None) == (self.guest == ""):
            raise ValidationError(_("Name either a user or a guest."))
        if self.room is not None and self.room.application_id != self.application_id:
            raise ValidationError({"room": _("This room belongs to another application.")})


def _one_target(kind: str) -> models.CheckConstraint:
    return models.CheckConstraint(
        name=f"rooms_{kind}_target",
        condition=Q(user__isnull=False, guest="") | (Q(user__isnull=True) & ~Q(guest="")),
    )


class Ban(Restriction):
    """May not come in."""

    class Meta(Restriction.Meta):
        abstract = False
        verbose_name = _("ban")
        verbose_name_plural = _("bans")
        constraints: ClassVar = [_one_target("ban")]


class Mute(Restriction):
    """May listen, but not speak."""

    class Meta(Restriction.Meta):
        abstract = False
        verbose_name = _("mute")
        verbose_name_plural = _("mutes")
        constraints: ClassVar = [_one_target("mute")]


class RevokedLogin(models.Model):
    """A login whose tokens are no longer accepted, kept until the last of them would have expired."""

    login = models.CharField(_("login"), max_length=32, primary_key=True)
    expires = models.DateTimeField(_("expires"), db_index=True)

    class Meta:
        verbose_name = _("revoked login")
        verbose_name_plural = _("revoked logins")

    def __str__(self) -> str:
        return self.login
