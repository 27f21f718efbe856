"""The applications and rooms that are alive in this process: record, group, lane and extension.

Loaded when somebody first asks, loaded again when a row changes, let go when nobody is left.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol as Structural

from rooms.concurrency.locks import Locks
from rooms.concurrency.serial_executor import AdmissionQueue, SerialExecutor
from rooms.concurrency.thread_pool import ThreadPool
from rooms.extensions import RoomContext
from rooms.extensions.contexts import ExtensionServices
from rooms.extensions.runner import ExtensionRunner
from rooms.hub.config import ApplicationConfig, RoomConfig, group_of
from rooms.hub.connection import Connection
from rooms.node import config
from rooms.node.control_messages import RoomChanged
from rooms.protocol import validators
from rooms.protocol.errors import RoomNotFound

# A room in which nobody of this process is stays loaded for so long.
IDLE_SECONDS = 30
# So many clients wait for an application's extension to be asked about their handshake; more are sent away.
MOST_HANDSHAKES = 64
# So many rooms are read again at once: neither a thread nor the event loop is held up by many.
CHUNK = 200


class Application:
    """An application in this process."""

    def __init__(self, record: ApplicationConfig, hooks: ExtensionRunner) -> None:
        self.record = record
        self.hooks = hooks
        #: Everybody connected to it, in hub and presence; connections that have asked for its rooms.
        self.group, self.watchers = f"application.{record.id}", f"watchers.{record.id}"
        self.handshakes = AdmissionQueue(hooks.executor, MOST_HANDSHAKES)
        # A change of the record has been taken over, but not yet carried out to its end.
        self.stale = False
        # Those that are open in this process, by their numbers: 1, 2, 3 …
        self.connections: dict[int, Connection] = {}
        self._numbers = itertools.count(1)

    def add(self, connection: Connection) -> None:
        connection.number = next(self._numbers)
        self.connections[connection.number] = connection

    def discard(self, connection: Connection) -> None:
        self.connections.pop(connection.number, None)


class Room:
    """A room in this process."""

    def __init__(
        self, application: Application, record: RoomConfig, hooks: ExtensionRunner, context: RoomContext
    ) -> None:
        self.application = application
        self.record = record
        self.hooks = hooks
        self.context = context
        self.used = time.monotonic()
        # Coming in and removing the empty room exclude each other.
        self.admission = asyncio.Lock()
        # The record before a change that has been taken over, but not yet carried out to its end.
        self.before: RoomConfig | None = None
        self.gone = False
        #: Everybody in it, in hub and presence.
        self.group = group_of(record.id)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def levels(self) -> tuple[ExtensionRunner, ExtensionRunner]:
        """Who is asked about what happens here, in this order."""
        return self.hooks, self.application.hooks


class Changes(Structural):
    """What is done about those who are in a place whose record changed, for whatever reason it was read."""

    def application_changed(self, application: Application) -> None: ...

    def room_changed(self, room: Room, old: RoomConfig) -> None: ...

    def notice(self, notice: RoomChanged) -> None: ...


class Registry:
    def __init__(
        self,
        pool: ThreadPool,
        handlers: ThreadPool,
        services: ExtensionServices,
        changes: Changes,
        handler_timeout: float,
    ) -> None:
        self._pool = pool
        self._handlers = handlers
        self._services = services
        self._seconds = handler_timeout
        self._changes = changes
        self._applications: dict[str, Application] = {}
        self._rooms: dict[tuple[int, str], Room] = {}
        self._by_group: dict[str, Room] = {}
        # One lock per thing being loaded, so that an extension begins once.
        self._loading = Locks()

    def applications(self) -> list[Application]:
        return list(self._applications.values())

    def known_application(self, name: str) -> Application | None:
        """The application if it is loaded: never waits."""
        return self._applications.get(name)

    def known_room(self, application: str, name: str) -> Room | None:
        """The room if it is loaded: never waits."""
        live = self._applications.get(application)
        return self._rooms.get((live.record.id, name)) if live else None

    def room_by_id(self, pk: int) -> Room | None:
        return self._by_group.get(group_of(pk))

    def room_by_group(self, group: str) -> Room | None:
        return self._by_group.get(group)

    async def application(self, name: str) -> Application | None:
        """The application of that name, if there is one and it is enabled."""
        live = self._applications.get(name)
        if live is None and validators.APPLICATION_NAME.match(name):
            live = await self.load_application(name, again=False)
        return live if live and live.record.enabled else None

    async def refresh(self) -> None:
        """Read again all that is alive, lest a notice that got lost be missed for good; extensions that
        have yet to begin may do so."""
        for name in list(self._applications):
            await self.load_application(name)
        for application in self.applications():
            rooms = self.rooms_of(application)
            for start in range(0, len(rooms), CHUNK):
                await self._notice_missed(application, rooms[start : start + CHUNK])
        for room in list(self._rooms.values()):
            if room.hooks.not_started:
                await self.reload_room(room)

    async def _notice_missed(self, application: Application, rooms: list[Room]) -> None:
        """Have done what the notice would have done that did not come. What is read here is only compared:
        when it is looked at, a notice may have brought something newer."""
        records = await self._pool.run(
            config.load_rooms, application.record, [room.record.id for room in rooms]
        )
        for room in rooms:
            pk, record = room.record.id, room.record
            if not room.gone and (records.get(pk) != record or room.before is not None):
                self._changes.notice(
                    RoomChanged(
                        application=application.record.name,
                        room=pk,
                        name=record.name,
                        listed=record.listed,
                        deleted=pk not in records,
                    )
                )

    async def load_application(self, name: str, *, again: bool = True) -> Application | None:
        """Read the row, also ``again``; what is alive takes over what it says."""
        async with self._loading.of(name):
            if not again and (loaded := self._applications.get(name)) is not None:
                return loaded
            record = await self._pool.run(config.load_application, name)
            live = self._applications.get(name)
            if record is None or (live is not None and live.record.id != record.id):
                self._forget_application(name)
                live = None
            if record is None:
                return None
            if live is None:
                live = Application(record, ExtensionRunner(self._lane(), self._services))
            changed = live.stale or live.record != record
            live.record, live.stale = record, changed
            if changed:
                # At once: what follows may fail, and is then done by the next reading.
                self._changes.application_changed(live)
            await live.hooks.configure(record.extension, record.extension_settings, record.name, None)
            self._applications[name] = live
            if changed:
                # What its rooms leave blank is said by the application.
                for room in self.rooms_of(live):
                    await self.reload_room(room)
            live.stale = False
            return live

    async def find_room(self, application: Application, name: str) -> Room | None:
        """The room of that name, if there is one."""
        live = self._rooms.get((application.record.id, name))
        if live is None:
            async with self._loading.of((application.record.id, name)):
                live = self._rooms.get((application.record.id, name))
                if live is None:
                    record = await self._pool.run(config.load_room, application.record, name)
                    live = None if record is None else await self._add_room(application, record)
        if live is not None:
            live.used = time.monotonic()
        return live

    async def room(self, application: Application, name: str) -> Room:
        """As ``find_room``; raises RoomNotFound."""
        live = await self.find_room(application, name)
        if live is None:
            raise RoomNotFound(f"There is no room {name}.")
        return live

    async def _add_room(self, application: Application, record: RoomConfig) -> Room:
        """A room's record becomes, or renews, a live room."""
        key = (application.record.id, record.name)
        live = self._rooms.get(key)
        if live is None or live.record.id != record.id:
            context = RoomContext(self._services, application.record.name, record.name)
            live = Room(application, record, ExtensionRunner(self._lane(), self._services), context)
        old, live.record = live.record, record
        if old != record and live.before is None:
            live.before = old
        await live.hooks.configure(
            record.extension, record.extension_settings, application.record.name, live.context
        )
        if live.gone:
            # Removed while its extension was asked; it must not come back.
            return live
        self._rooms[key] = self._by_group[live.group] = live
        if live.before is not None:
            before, live.before = live.before, None
            self._changes.room_changed(live, before)
        return live

    async def reload_room(self, live: Room) -> RoomConfig | None:
        """Read a room's row again, by its id: None when it is gone. A new name is not taken over."""
        async with self._loading.of((live.application.record.id, live.name)):
            record = await self._pool.run(config.load_room_by_id, live.application.record, live.record.id)
            if record is not None and record.name == live.name and not live.gone:
                await self._add_room(live.application, record)
            return record

    async def loaded(self, application: Application, name: str) -> None:
        """Wait until a room of that name that is just being loaded is there."""
        async with self._loading.of((application.record.id, name)):
            return

    def remove_room(self, live: Room) -> None:
        key = (live.application.record.id, live.name)
        live.gone = True
        if self._rooms.get(key) is live:
            del self._rooms[key]
        self._by_group.pop(live.group, None)
        live.hooks.stop()

    def sweep(self, in_use: Callable[[str], bool]) -> None:
        """Let go of rooms that nobody here is in. One with an extension stays: it may hold state."""
        oldest = time.monotonic() - IDLE_SECONDS
        for live in list(self._rooms.values()):
            if live.used < oldest and not live.hooks.active and not in_use(live.group):
                self.remove_room(live)

    def close(self) -> None:
        for name in list(self._applications):
            self._forget_application(name)

    def _forget_application(self, name: str) -> None:
        live = self._applications.pop(name, None)
        if live is None:
            return
        live.hooks.stop()
        for room in self.rooms_of(live):
            self.remove_room(room)
        live.record = replace(live.record, enabled=False)
        self._changes.application_changed(live)

    def rooms_of(self, application: Application) -> list[Room]:
        return [room for room in self._rooms.values() if room.application is application]

    def _lane(self) -> SerialExecutor:
        return SerialExecutor(self._handlers, self._seconds)
