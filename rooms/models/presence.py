"""Who is where, for processes that share a database and nothing else (``presence/database.py``).

Nothing in these tables outlives the processes that said it: their leases are in ``PresenceNode``.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from django.db import models, router
from django.utils.translation import gettext_lazy as _

from rooms.models.common import MAX_USER_ID_LENGTH

Row = TypeVar("Row", bound=models.Model)


class Written(models.Manager[Row]):
    """Reads where it writes: a copy that lags behind would have people both here and gone."""

    def get_queryset(self) -> models.QuerySet[Row]:
        return super().get_queryset().using(router.db_for_write(self.model))


class PresenceNode(models.Model):
    """A process, and until when what it said holds. Once it is being ``swept`` it cannot renew that."""

    id = models.CharField(max_length=32, primary_key=True)
    lease = models.DateTimeField(db_index=True)
    swept = models.BooleanField(default=False)

    objects = Written()

    class Meta:
        verbose_name = _("process")
        verbose_name_plural = _("processes")

    def __str__(self) -> str:
        return self.id


class PresenceGroup(models.Model):
    """A group's row is its lock: whoever changes who is in the group holds it."""

    name = models.CharField(max_length=255, primary_key=True)
    closed_until = models.DateTimeField(null=True)

    objects = Written()

    class Meta:
        verbose_name = _("group")
        verbose_name_plural = _("groups")

    def __str__(self) -> str:
        return self.name


class PresentUser(models.Model):
    """A user who is in a group. ``place`` is their place in the order of its members; it is made of
    bytes because databases order text each in its own way."""

    group = models.CharField(max_length=255)
    user_id = models.CharField(max_length=MAX_USER_ID_LENGTH)
    name = models.CharField(max_length=255)
    guest = models.BooleanField()
    place = models.BinaryField()

    objects = Written()

    class Meta:
        verbose_name = _("present user")
        verbose_name_plural = _("present users")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["group", "user_id"], name="rooms_presentuser_user")
        ]
        indexes: ClassVar = [models.Index(fields=["group", "place"], name="rooms_presentuser_place")]

    def __str__(self) -> str:
        return self.name


class PresentConnection(models.Model):
    """A connection of a present user, and the process that holds it."""

    group = models.CharField(max_length=255)
    user_id = models.CharField(max_length=MAX_USER_ID_LENGTH)
    connection = models.CharField(max_length=255)
    node = models.CharField(max_length=32, db_index=True)
    fading = models.BooleanField(default=False)

    objects = Written()

    class Meta:
        verbose_name = _("present connection")
        verbose_name_plural = _("present connections")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["group", "user_id", "connection"], name="rooms_presentconnection_connection"
            )
        ]

    def __str__(self) -> str:
        return self.connection
