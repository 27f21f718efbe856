"""Sends a control message to every node when a row is saved or deleted.

It is sent after the commit.

Queryset updates and bulk operations send no signals: save one of the rows afterwards, or wait until
the nodes refresh it. What sends is imported with the first change, so that ``manage.py migrate``
and a worker that serves only HTTP load no node.
"""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_delete, post_save, pre_save

from rooms.models import Application, Ban, Mute, Restriction, Room
from rooms.node.control_messages import AnyControlMessage, ApplicationChanged, RoomChanged


def connect() -> None:
    """Connect the receivers to the signals of the app's own models."""
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


def notify(message: AnyControlMessage) -> None:
    """Send the message after the commit."""
    from rooms import api

    api.notify(message)


def _remember(sender: type[Application | Room], instance: Any, raw: bool = False, **_: Any) -> None:
    """Keep the stored row: clients know the room by its old name."""
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
    # A room that is deleted with its restrictions sends its own message.
    elif room := Room.objects.filter(pk=instance.room_id).first():
        notify(
            RoomChanged(
                application=instance.application.name, room=room.pk, name=room.name, listed=room.listed
            )
        )
