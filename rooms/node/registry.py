"""The applications and rooms of this process: loaded, cached and refreshed.

A room is loaded by the first command that needs it, loaded again when its row changes, and dropped
when it has no members in this process any more.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Protocol

from rooms.concurrency.locks import Locks
from rooms.concurrency.serial_executor import AdmissionQueue, SerialExecutor
from rooms.concurrency.thread_pool import ThreadPool
from rooms.conf import Settings
from rooms.extensions import RoomContext
from rooms.extensions.contexts import ExtensionServices
from rooms.extensions.runner import ExtensionRunner
from rooms.hub.application import Application
from rooms.hub.config import RoomConfig, room_group
from rooms.hub.group import Hub
from rooms.hub.room import Room, RoomListener
from rooms.node import config
from rooms.node.control_messages import RoomChanged
from rooms.protocol import validators
from rooms.protocol.errors import RoomNotFound

# A room without members in this process stays loaded for this many seconds.
IDLE_SECONDS = 30
# This many handshakes may wait for an application's extension; further ones are refused.
MAX_HANDSHAKES = 64
# This many rooms are read at once by a refresh: neither a thread nor the event loop is blocked for long.
REFRESH_CHUNK = 200


class RegistryListener(RoomListener, Protocol):
    """The node, as the registry sees it."""

    def on_application_changed(self, application: Application) -> None:
        """The config of an application is another one: apply it to the open connections."""

    def on_room_changed(self, room: Room, old: RoomConfig) -> None:
        """The config of a room is another one: apply it to its members."""

    def on_change_missed(self, message: RoomChanged) -> None:
        """A refresh found a change whose control message was lost."""


class Registry:
    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        pool: ThreadPool,
        handlers: ThreadPool,
        services: ExtensionServices,
        listener: RegistryListener,
    ) -> None:
        self._settings = settings
        self._hub = hub
        self._pool = pool
        self._handlers = handlers
        self._services = services
        self._listener = listener
        self._applications: dict[str, Application] = {}
        self._rooms: dict[tuple[int, str], Room] = {}
        self._by_key: dict[str, Room] = {}
        # One lock per application or room that is being loaded, so that an extension starts once.
        self._loading = Locks()

    # Without waiting ---------------------------------------------------------------------------------

    def applications(self) -> list[Application]:
        return list(self._applications.values())

    def rooms(self) -> list[Room]:
        return list(self._rooms.values())

    def cached_application(self, name: str) -> Application | None:
        """Return the application if it is loaded."""
        return self._applications.get(name)

    def cached_room(self, application: str, name: str) -> Room | None:
        """Return the room if it is loaded."""
        found = self._applications.get(application)
        return self._rooms.get((found.config.id, name)) if found else None

    def room_by_id(self, pk: int) -> Room | None:
        return self._by_key.get(room_group(pk))

    def room_by_key(self, key: str) -> Room | None:
        """Return the loaded room with this key, or None.

        The channel layer and presence name a room by its key.
        """
        return self._by_key.get(key)

    def rooms_of(self, application: Application) -> list[Room]:
        return [room for room in self._rooms.values() if room.application is application]

    # Applications ------------------------------------------------------------------------------------

    async def application(self, name: str) -> Application | None:
        """Return the application of that name, if there is one and it is enabled."""
        application = self._applications.get(name)
        if application is None and validators.APPLICATION_NAME.match(name):
            application = await self.load_application(name, reload=False)
        return application if application and application.config.enabled else None

    async def load_application(self, name: str, *, reload: bool = True) -> Application | None:
        """Read the row of an application; ``reload`` reads a loaded one again.

        A loaded application takes over the new config.
        """
        async with self._loading.of(name):
            if not reload and (loaded := self._applications.get(name)) is not None:
                return loaded
            found = await self._pool.run(config.load_application, name)
            application = self._applications.get(name)
            if found is None or (application is not None and application.config.id != found.id):
                self._forget_application(name)
                application = None
            if found is None:
                return None
            if application is None:
                runner = ExtensionRunner(self._executor(), self._services)
                queue = AdmissionQueue(runner.executor, MAX_HANDSHAKES)
                application = Application(self._hub, found, runner=runner, handshakes=queue)
            changed = application.stale or application.config != found
            application.config, application.stale = found, changed
            if changed:
                # At once: what follows may fail, and is repeated by the next read.
                self._listener.on_application_changed(application)
            await application.runner.configure(found.extension, found.extension_settings, found.name, None)
            self._applications[name] = application
            if changed:
                # Rooms inherit what their rows leave blank.
                for room in self.rooms_of(application):
                    await self.reload_room(room)
            application.stale = False
            return application

    def _forget_application(self, name: str) -> None:
        application = self._applications.pop(name, None)
        if application is None:
            return
        application.runner.stop()
        for room in self.rooms_of(application):
            self.remove_room(room)
        application.config = replace(application.config, enabled=False)
        self._listener.on_application_changed(application)

    # Rooms -------------------------------------------------------------------------------------------

    async def room(self, application: Application, name: str) -> Room:
        """As ``find_room``; raises RoomNotFound."""
        room = await self.find_room(application, name)
        if room is None:
            raise RoomNotFound(f"There is no room {name}.")
        return room

    async def find_room(self, application: Application, name: str) -> Room | None:
        """Return the room of that name, if there is one."""
        room = self._rooms.get((application.config.id, name))
        if room is None:
            async with self._loading.of((application.config.id, name)):
                room = self._rooms.get((application.config.id, name))
                if room is None:
                    found = await self._pool.run(config.load_room, application.config, name)
                    room = None if found is None else await self._add_room(application, found)
        if room is not None:
            room.last_used = time.monotonic()
        return room

    async def reload_room(self, room: Room) -> RoomConfig | None:
        """Read the row of a room again, by its id.

        Returns None if the row does not exist any more. A new name is not taken over.
        """
        async with self._loading.of((room.application.config.id, room.name)):
            found = await self._pool.run(config.load_room_by_id, room.application.config, room.config.id)
            if found is not None and found.name == room.name and not room.removed:
                await self._add_room(room.application, found)
            return found

    async def wait_loaded(self, application: Application, name: str) -> None:
        """Wait until a room of that name that is being loaded is there."""
        async with self._loading.of((application.config.id, name)):
            return

    def remove_room(self, room: Room) -> None:
        key = (room.application.config.id, room.name)
        room.removed = True
        if self._rooms.get(key) is room:
            del self._rooms[key]
        if self._by_key.get(room.key) is room:
            del self._by_key[room.key]
        room.runner.stop()

    async def _add_room(self, application: Application, found: RoomConfig) -> Room:
        """Make a room of a config, or have the loaded room take it over."""
        key = (application.config.id, found.name)
        room = self._rooms.get(key)
        if room is None or room.config.id != found.id:
            room = self.make_room(application, found)
        old, room.config = room.config, found
        if old != found and room.previous_config is None:
            room.previous_config = old
        await room.runner.configure(
            found.extension, found.extension_settings, application.config.name, room.context
        )
        if room.removed:
            # Removed while its extension started: it must not be registered again.
            return room
        self._rooms[key] = self._by_key[room.key] = room
        if room.previous_config is not None:
            before, room.previous_config = room.previous_config, None
            self._listener.on_room_changed(room, before)
        return room

    def make_room(self, application: Application, found: RoomConfig) -> Room:
        """Return a room that is not registered."""
        return Room(
            self._hub,
            application,
            found,
            listener=self._listener,
            runner=ExtensionRunner(self._executor(), self._services),
            context=RoomContext(self._services, application.config.name, found.name),
            diff_threshold=self._settings.presence_diff_threshold,
        )

    def _executor(self) -> SerialExecutor:
        return SerialExecutor(self._handlers, self._settings.handler_timeout)

    # Upkeep ------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Read everything that is loaded again, in case a control message was lost.

        Extensions that have not started are tried again.
        """
        for name in list(self._applications):
            await self.load_application(name)
        for application in self.applications():
            rooms = self.rooms_of(application)
            for start in range(0, len(rooms), REFRESH_CHUNK):
                await self._find_missed(application, rooms[start : start + REFRESH_CHUNK])
        for room in self.rooms():
            if room.runner.not_started:
                await self.reload_room(room)

    async def _find_missed(self, application: Application, rooms: list[Room]) -> None:
        """Report the changes that no control message announced.

        The rows are only compared: a message may bring a newer change before the report is acted on.
        """
        found = await self._pool.run(
            config.load_rooms, application.config, [room.config.id for room in rooms]
        )
        for room in rooms:
            pk, current = room.config.id, room.config
            if not room.removed and (found.get(pk) != current or room.previous_config is not None):
                self._listener.on_change_missed(
                    RoomChanged(
                        application=application.config.name,
                        room=pk,
                        name=current.name,
                        listed=current.listed,
                        deleted=pk not in found,
                    )
                )

    def sweep(self) -> None:
        """Drop idle rooms without members in this process.

        A room with an extension stays, since the extension may hold state.
        """
        oldest = time.monotonic() - IDLE_SECONDS
        for room in self.rooms():
            if room.last_used < oldest and not room.runner.active and not room.in_use:
                self.remove_room(room)

    def close(self) -> None:
        for name in list(self._applications):
            self._forget_application(name)
