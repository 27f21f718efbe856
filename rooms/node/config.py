"""Applications and rooms as plain, complete values.

Rows of the database leave fields blank that are said elsewhere (room, application, settings);
here they are resolved once, so that the engine and the policy read one value and never a model.
The engine keeps what it loads and loads again when a row changes (``node/registry.py``): from the
database that is written, since it hears of it right after the commit.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import cast

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Left

from rooms.concurrency.thread_pool import check_wanted
from rooms.conf import get_settings
from rooms.hub.config import ApplicationConfig, RoomConfig
from rooms.models import Application, HistoryPolicy, Room, Sequence
from rooms.models.database import database
from rooms.node.moderation import in_force, restricted
from rooms.protocol.commands import CreateRoom
from rooms.protocol.compat_commands import CreateOwnedRoom
from rooms.protocol.errors import PermissionDenied, RoomExists
from rooms.protocol.events import RoomInfo
from rooms.protocol.types import Mode, User


def place_of(group: str) -> tuple[str, str] | None:
    """The names of the application and the room whose group it is, if it is a room's and still there."""
    kind, _, pk = group.partition(".")
    if kind != "room":
        return None
    return Room.objects.filter(pk=pk).values_list("application__name", "name").first()


def load_application(name: str) -> ApplicationConfig | None:
    """The application of that name, disabled ones too."""
    rows = Application.objects.using(database()).prefetch_related(*in_force(database(), room=None))
    row = rows.filter(name=name).first()
    return None if row is None else _application(row)


def load_room(application: ApplicationConfig, name: str) -> RoomConfig | None:
    row = _rooms().filter(application_id=application.id, name=name).first()
    return None if row is None else _room(application, row)


def load_room_by_id(application: ApplicationConfig, pk: int) -> RoomConfig | None:
    row = _rooms().filter(application_id=application.id, pk=pk).first()
    return None if row is None else _room(application, row)


def load_rooms(application: ApplicationConfig, pks: Collection[int]) -> dict[int, RoomConfig | None]:
    """The rooms with these ids that are there; None stands for one that is another application's now."""
    return {
        row.pk: _room(application, row) if row.application_id == application.id else None
        for row in _rooms().filter(pk__in=pks)
    }


def list_rooms(application: ApplicationConfig, prefix: str, limit: int) -> dict[int, RoomInfo]:
    """Listed rooms whose names begin with ``prefix``, by name, with their ids; nobody counted yet."""
    rows = Room.objects.filter(application_id=application.id, listed=True).order_by("name")
    if prefix:
        # Not ``startswith``: on SQLite that would ignore case.
        rows = rows.alias(beginning=Left("name", len(prefix))).filter(beginning=prefix)
    return {
        pk: RoomInfo(name=name, title=title, members=0, max_members=max_members, mode=cast(Mode, mode))
        for pk, name, title, max_members, mode in rows.values_list(
            "id", "name", "title", "max_members", "mode"
        )[:limit]
    }


def create_room(
    application: ApplicationConfig, request: CreateRoom, user: User | None, password: str = ""
) -> None:
    """Make a room on behalf of ``user``, who owns it, or of the server; ``password`` is hashed.

    Raises RoomExists, or PermissionDenied where the application has as many rooms as it may.
    """
    owned = isinstance(request, CreateOwnedRoom)
    try:
        with transaction.atomic(using=database()):
            _check_room_count(application)
            row = Room.objects.create(
                application_id=application.id,
                name=request.room,
                title=request.title or "",
                mode=request.mode or Room.Mode.OPEN,
                max_members=request.max_members,
                password=password,
                owner_id=user.id if user and not user.guest else None,
                guest_owner_id=user.id if user and user.guest else "",
                guest_owner_name=user.name if user and user.guest else "",
                persistent=application.rooms_stay and not owned,
                listed=not owned,
                closes_with_owner=owned,
                leave_grace=request.leave_grace if isinstance(request, CreateOwnedRoom) else None,
            )
            Sequence.objects.create(room=row)
            check_wanted()
    except IntegrityError:
        if Room.objects.filter(application_id=application.id, name=request.room).exists():
            raise RoomExists(f"There is a room {request.room} already.") from None
        raise PermissionDenied("This application or your account is not there any more.") from None


def _check_room_count(application: ApplicationConfig) -> None:
    if application.max_rooms is None:
        return
    # The lock makes counting and making one step for everyone who makes a room here.
    Application.objects.select_for_update().filter(pk=application.id).first()
    if Room.objects.filter(application_id=application.id).count() >= application.max_rooms:
        raise PermissionDenied(f"This application may have {application.max_rooms} rooms, and has them.")


def delete_room(pk: int) -> None:
    with transaction.atomic(using=database()):
        for room in Room.objects.filter(pk=pk):
            room.delete()
        # Somebody may have come in since.
        check_wanted()


def passing_rooms(before: datetime) -> list[int]:
    """Ids of rooms that go with their last member and were made before a time."""
    return list(Room.objects.filter(persistent=False, created__lt=before).values_list("id", flat=True))


def _rooms() -> QuerySet[Room]:
    rows = Room.objects.using(database()).select_related("owner")
    return rows.prefetch_related(*in_force(database()))


def _application(row: Application) -> ApplicationConfig:
    defaults = get_settings()
    return ApplicationConfig(
        id=row.pk,
        name=row.name,
        title=row.title,
        enabled=row.enabled,
        protocols=tuple(row.protocols),
        entry=row.entry,
        group=row.group_id,
        rooms_on_demand=row.rooms_on_demand,
        rooms_stay=row.rooms_stay,
        max_users=row.max_users,
        max_rooms=row.max_rooms,
        max_connections_per_address=_or(
            row.max_connections_per_address, defaults.max_connections_per_address
        ),
        logins_per_minute=_or(row.logins_per_minute, defaults.logins_per_minute),
        max_message_bytes=row.max_message_bytes,
        request_rate=_or(row.request_rate, defaults.request_rate),
        request_burst=_or(row.request_burst, defaults.request_burst),
        history=HistoryPolicy(row.history).value,
        history_size=_or(row.history_size, defaults.history_size),
        history_ttl=_or(row.history_ttl, defaults.history_ttl),
        leave_grace=_or(row.leave_grace, defaults.leave_grace),
        extension=row.extension,
        extension_settings=row.extension_settings,
        bans=restricted(row, "bans"),
        mutes=restricted(row, "mutes"),
    )


def _room(application: ApplicationConfig, row: Room) -> RoomConfig:
    return RoomConfig(
        id=row.pk,
        application=application,
        name=row.name,
        title=row.title,
        mode=cast(Mode, row.mode),
        owner_id=row.guest_owner_id or ("" if row.owner_id is None else str(row.owner_id)),
        owner_name=row.guest_owner_name or ("" if row.owner is None else row.owner.get_username()),
        owner_guest=bool(row.guest_owner_id),
        max_members=row.max_members,
        password=row.password,
        listed=row.listed,
        persistent=row.persistent,
        closes_with_owner=row.closes_with_owner,
        history=HistoryPolicy(row.history or application.history).value,
        history_size=_or(row.history_size, application.history_size),
        history_ttl=_or(row.history_ttl, application.history_ttl),
        leave_grace=_or(row.leave_grace, application.leave_grace),
        request_rate=row.request_rate,
        request_burst=_or(row.request_burst, application.request_burst),
        extension=row.extension,
        extension_settings=row.extension_settings,
        bans=restricted(row, "bans"),
        mutes=restricted(row, "mutes"),
    )


def _or(*values: int | None) -> int:
    """The first that is said."""
    return next(value for value in values if value is not None)
