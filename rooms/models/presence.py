"""Tables of presence, for ``presence/database.py``.

No row outlives the process that wrote it: the leases of processes are in ``PresenceNode``.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from django.db import models, router
from django.utils.translation import gettext_lazy as _

from rooms.models.common import MAX_USER_ID_LENGTH

Row = TypeVar("Row", bound=models.Model)


class PrimaryManager(models.Manager[Row]):
    """Reads from the database that is written: a replica may lag behind."""

    def get_queryset(self) -> models.QuerySet[Row]:
        return super().get_queryset().using(router.db_for_write(self.model))


class PresenceNode(models.Model):
    """A process and its lease, which it cannot renew while its rows are ``swept``."""

    id = models.CharField(max_length=32, primary_key=True)
    lease = models.DateTimeField(db_index=True)
    swept = models.BooleanField(default=False)

    objects = PrimaryManager()

    class Meta:
        verbose_name = _("process")
        verbose_name_plural = _("processes")

    def __str__(self) -> str:
        return self.id


class PresenceGroup(models.Model):
    """A group. Its row is the lock for changes of its users."""

    name = models.CharField(max_length=255, primary_key=True)
    closed_until = models.DateTimeField(null=True)

    objects = PrimaryManager()

    class Meta:
        verbose_name = _("group")
        verbose_name_plural = _("groups")

    def __str__(self) -> str:
        return self.name


class PresentUser(models.Model):
    """A user in a group.

    ``sort_key`` is in bytes, because databases sort text differently.
    """

    group = models.CharField(max_length=255)
    user_id = models.CharField(max_length=MAX_USER_ID_LENGTH)
    name = models.CharField(max_length=255)
    guest = models.BooleanField()
    sort_key = models.BinaryField()

    objects = PrimaryManager()

    class Meta:
        verbose_name = _("present user")
        verbose_name_plural = _("present users")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["group", "user_id"], name="rooms_presentuser_user")
        ]
        indexes: ClassVar = [models.Index(fields=["group", "sort_key"], name="rooms_presentuser_sort_key")]

    def __str__(self) -> str:
        return self.name


class PresentConnection(models.Model):
    """A connection of a present user, its process, and whether it is in grace."""

    group = models.CharField(max_length=255)
    user_id = models.CharField(max_length=MAX_USER_ID_LENGTH)
    connection = models.CharField(max_length=255)
    node = models.CharField(max_length=32, db_index=True)
    in_grace = models.BooleanField(default=False)

    objects = PrimaryManager()

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
