"""Tells the engine of every process when a row changes, wherever it was changed: after the commit.

Queryset updates and bulk operations send no signals; after those, save one of the rows, or wait
until the row is read again.
"""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_delete, post_save, pre_save

from rooms.api import notify
from rooms.models import Application, Ban, Mute, Restriction, Room
from rooms.node.control_messages import ApplicationChanged, RoomChanged


def connect() -> None:
    """Listen to the app's own tables."""
    for model in (Application, Room):
        pre_save.connect(_remember, model, dispatch_uid="rooms.before")
    for signal in (post_save, post_delete):
        deleted = signal is post_delete
        signal.connect(
            _application_deleted if deleted else _application_saved, Application, dispatch_uid="rooms"
        )
        signal.connect(_room_deleted if deleted else _room_saved, Room, dispatch_uid="rooms")
        for restriction in (Ban, Mute):
            signal.connect(_restriction_changed, restriction, dispatch_uid="rooms")


def _remember(sender: type[Application | Room], instance: Any, raw: bool = False, **_: Any) -> None:
    """What clients know of the row so far: it is under its old name that they know it."""
    instance._rooms_before = (
        None if raw or instance._state.adding else sender.objects.filter(pk=instance.pk).first()
    )


def _application_saved(instance: Application, **_: Any) -> None:
    before = getattr(instance, "_rooms_before", None) or instance
    notify(ApplicationChanged(application=before.name))


def _application_deleted(instance: Application, **_: Any) -> None:
    notify(ApplicationChanged(application=instance.name))


def _room_saved(instance: Room, **_: Any) -> None:
    before = getattr(instance, "_rooms_before", None)
    notify(
        RoomChanged(
            application=instance.application.name,
            room=instance.pk,
            name=(before or instance).name,
            listed=before is not None and before.listed,
        )
    )


def _room_deleted(instance: Room, **_: Any) -> None:
    notify(
        RoomChanged(
            application=instance.application.name,
            room=instance.pk,
            name=instance.name,
            listed=instance.listed,
            deleted=True,
        )
    )


def _restriction_changed(instance: Restriction, **_: Any) -> None:
    if instance.room_id is None:
        notify(ApplicationChanged(application=instance.application.name))
    # When the room goes too, its row may be gone by now; that is said of the room itself.
    elif room := Room.objects.filter(pk=instance.room_id).first():
        notify(
            RoomChanged(
                application=instance.application.name, room=room.pk, name=room.name, listed=room.listed
            )
        )
