"""Reads and writes the rows of applications and rooms.

Rows leave fields blank that the application or the settings fill in; they are resolved here, into the
frozen configs of ``hub/config.py``. Reads use the database that is written: a node reads a row right
after the commit that changed it. All functions are called in threads.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Literal, cast

from django.db import IntegrityError, transaction
from django.db.models import Prefetch, Q, QuerySet
from django.db.models.functions import Left
from django.utils import timezone

from rooms.concurrency.thread_pool import check_wanted
from rooms.conf import get_settings
from rooms.hub.config import ApplicationConfig, RestrictedUser, RoomConfig
from rooms.models import Application, Ban, HistoryPolicy, Mute, Restriction, Room, Sequence
from rooms.models.database import database
from rooms.protocol import validators
from rooms.protocol.commands import CreateRoom
from rooms.protocol.compat_commands import CreateOwnedRoom
from rooms.protocol.errors import PermissionDenied, RoomExists
from rooms.protocol.events import RoomInfo
from rooms.protocol.types import Mode, User


def names_of_room(key: str) -> tuple[str, str] | None:
    """Return the names of the application and the room with this key.

    Returns None if the key is not a room's or the room does not exist.
    """
    kind, _, pk = key.partition(".")
    if kind != "room":
        return None
    return Room.objects.filter(pk=pk).values_list("application__name", "name").first()


def load_application(name: str) -> ApplicationConfig | None:
    """Return the application of that name, also a disabled one."""
    alias = database()
    rows = Application.objects.using(alias).prefetch_related(*_restrictions(alias, room=None))
    row = rows.filter(name=name).first()
    return None if row is None else _application(row)


def load_room(application: ApplicationConfig, name: str) -> RoomConfig | None:
    row = _rooms().filter(application_id=application.id, name=name).first()
    return None if row is None else _room(application, row)


def load_room_to_publish(application: str, name: str) -> RoomConfig | None:
    """Return a room of an enabled application by one query, without bans and mutes."""
    rows = Room.objects.using(database()).select_related("owner", "application")
    row = rows.filter(application__name=application, application__enabled=True, name=name).first()
    if row is None:
        return None
    for each in (row, row.application):
        vars(each).update(bans_in_force=[], mutes_in_force=[])
    return _room(_application(row.application), row)


def load_room_by_id(application: ApplicationConfig, pk: int) -> RoomConfig | None:
    row = _rooms().filter(application_id=application.id, pk=pk).first()
    return None if row is None else _room(application, row)


def load_rooms(application: ApplicationConfig, pks: Collection[int]) -> dict[int, RoomConfig | None]:
    """Return the rooms with these ids that exist.

    None stands for a room of another application.
    """
    return {
        row.pk: _room(application, row) if row.application_id == application.id else None
        for row in _rooms().filter(pk__in=pks)
    }


def list_rooms(application: ApplicationConfig, prefix: str, limit: int) -> dict[int, RoomInfo]:
    """Return the listed rooms whose names begin with ``prefix``, by id.

    They are ordered by name. Their members are not counted yet.
    """
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
    application: ApplicationConfig, command: CreateRoom, user: User | None, password: str = ""
) -> None:
    """Create a room that ``user`` owns (None: the server). ``password`` is hashed.

    Raises RoomExists, and PermissionDenied where the application has the most rooms that it may have.
    """
    owned = isinstance(command, CreateOwnedRoom)
    try:
        with transaction.atomic(using=database()):
            _check_room_count(application)
            row = Room.objects.create(
                application_id=application.id,
                name=command.room,
                title=command.title or "",
                mode=command.mode or Room.Mode.OPEN,
                max_members=command.max_members,
                password=password,
                owner_id=user.id if user and not user.guest else None,
                guest_owner_id=user.id if user and user.guest else "",
                guest_owner_name=user.name if user and user.guest else "",
                persistent=application.rooms_stay and not owned,
                listed=not owned,
                closes_with_owner=owned,
                leave_grace=command.leave_grace if isinstance(command, CreateOwnedRoom) else None,
            )
            Sequence.objects.create(room=row)
            check_wanted()
    except IntegrityError:
        if Room.objects.filter(application_id=application.id, name=command.room).exists():
            raise RoomExists(f"Room {command.room} exists already.") from None
        raise PermissionDenied("This application or your account does not exist any more.") from None


def _check_room_count(application: ApplicationConfig) -> None:
    if application.max_rooms is None:
        return
    # The lock makes counting and creating one step.
    Application.objects.select_for_update().filter(pk=application.id).first()
    if Room.objects.filter(application_id=application.id).count() >= application.max_rooms:
        raise PermissionDenied(
            f"This application has the most rooms that it may have ({application.max_rooms})."
        )


def delete_room(pk: int) -> None:
    with transaction.atomic(using=database()):
        for room in Room.objects.filter(pk=pk):
            room.delete()
        # A member may have joined since.
        check_wanted()


def temporary_rooms(before: datetime) -> list[int]:
    """Return the ids of the temporary rooms that were created before a time.

    A temporary room is deleted with its last member.
    """
    return list(Room.objects.filter(persistent=False, created__lt=before).values_list("id", flat=True))


def _rooms() -> QuerySet[Room]:
    alias = database()
    rows = Room.objects.using(alias).select_related("owner")
    return rows.prefetch_related(*_restrictions(alias))


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
        bans=_restricted(row, "bans"),
        mutes=_restricted(row, "mutes"),
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
        bans=_restricted(row, "bans"),
        mutes=_restricted(row, "mutes"),
    )


def _restrictions(alias: str, **where: None) -> list[Prefetch[Any]]:
    """Prefetch the bans and mutes in force: one query each for any number of rows."""
    now = Q(until__isnull=True) | Q(until__gt=timezone.now())
    bans, mutes = Ban.objects.using(alias), Mute.objects.using(alias)
    # Ordered, so that unchanged configs are equal.
    return [
        Prefetch("bans", bans.filter(now, **where).order_by("pk"), to_attr="bans_in_force"),
        Prefetch("mutes", mutes.filter(now, **where).order_by("pk"), to_attr="mutes_in_force"),
    ]


def _restricted(row: Application | Room, kind: Literal["bans", "mutes"]) -> tuple[RestrictedUser, ...]:
    """Return the bans or mutes that were prefetched with a row."""
    rows: list[Restriction] = getattr(row, f"{kind}_in_force")
    return tuple(
        RestrictedUser(
            user="" if each.user_id is None else str(each.user_id),
            guest=validators.user_key(each.guest) if each.guest else "",
            until=each.until,
            reason=each.reason,
        )
        for each in rows
    )


def _or(*values: int | None) -> int:
    """Return the first value that is set."""
    return next(value for value in values if value is not None)
