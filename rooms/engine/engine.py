"""The engine of one process: puts the parts together, starts and stops them.

The operations stand beside it, a file for each subject: ``logins``, ``membership``, ``messages``,
``management``; ``notices`` is what changes from outside do. One engine belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from rooms.catalogue import RoomRecord
from rooms.conf import Settings, get_settings, load_backend
from rooms.engine.bus import Bus
from rooms.engine.crowds import Crowds
from rooms.engine.departing import Departing
from rooms.engine.directory import Directory, LiveApplication, LiveRoom
from rooms.engine.gaps import CHECK_SECONDS, Gaps
from rooms.engine.heartbeat import Heartbeat
from rooms.engine.logins import Logins
from rooms.engine.management import Management
from rooms.engine.membership import Membership
from rooms.engine.messages import Messages
from rooms.engine.notices import Notices
from rooms.engine.parts import Parts, event_of, user_of
from rooms.engine.reading import Reading
from rooms.engine.services import EngineServices
from rooms.engine.speaking import Speaking
from rooms.engine.throttle import Throttle
from rooms.errors import CloseCode, RoomsError
from rooms.events import Connected, Logout, Ping, Pong, Quit
from rooms.fanout import Connection, Hub
from rooms.histories import PRUNE_SECONDS, Histories
from rooms.limits import Addresses
from rooms.notices import AnyNotice
from rooms.presence.base import BEAT_SECONDS, Presence
from rooms.protocols.native import VERSION
from rooms.threads import CATALOGUE_SECONDS, Pool

SWEEP_SECONDS, REFRESH_SECONDS, REPAIR_SECONDS = 60, 30, 2

_running: Engine | None = None


@dataclass(slots=True)
class _Socket:
    """What the engine keeps of a connection: how to end it, and what it is counted in."""

    abort: Callable[[], None]
    application: LiveApplication | None = None
    address: str = ""
    greeted: bool = False


class Engine:
    """Made in a running event loop. ``start`` takes a seat on the channel layer and begins to listen;
    an engine that was not started can still publish, which is what other processes do."""

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or get_settings()
        self.loop = asyncio.get_running_loop()
        presence: Presence = load_backend(settings.presence)
        self.node = presence.node
        self.connections: dict[Connection, _Socket] = {}
        self._handlers = Pool(settings.threads, settings.thread_queue, "rooms-handlers")
        pool = Pool(settings.threads, settings.thread_queue, answer_seconds=CATALOGUE_SECONDS)
        self.services = EngineServices(self.loop)
        self.parts = Parts(
            settings=settings,
            hub=Hub(
                lambda group: self.gaps.found(group),
                lambda group: self.crowds.gathers(group),
                settings.large_room_members,
                lambda batch: self.parts.flusher.add(batch),
            ),
            bus=Bus(settings.channel_layer, self.node, lambda *it: self.speaking.relayed(*it), self.notice),
            directory=Directory(pool, self._handlers, self.services, self, settings.handler_seconds),
            presence=presence,
            histories=Histories(settings.history),
            pool=pool,
            passwords=Pool(2, 32, "rooms-passwords"),
        )
        self.management = Management(self.parts)
        self.departing = Departing(self.parts, self.management)
        self.membership = Membership(self.parts, self.management, self.departing)
        self.messages = Messages(self.parts)
        self.reading = Reading(self.parts)
        self.gaps = Gaps(self.parts)
        self.crowds = Crowds(self.parts)
        self.services.serve(self.parts, self.management, self.messages)
        self.speaking = Speaking(self.parts, self.messages)
        self.logins = Logins(self.parts)
        self.notices = Notices(self.parts, self.departing, self.management)
        self.throttle = Throttle(self.parts.directory, settings.request_rate, settings.request_burst)
        self._addresses = Addresses()
        self._ticking: asyncio.Task[None] | None = None

    # Life --------------------------------------------------------------------------------------------

    @classmethod
    def running(cls) -> Engine | None:
        """The engine that serves this process's sockets, if one does."""
        return _running

    @classmethod
    async def serving(cls) -> Engine:
        """The running engine of this event loop, started with the first connection."""
        global _running
        if _running is None or _running.loop is not asyncio.get_running_loop():
            _running = cls()
            _running._started = asyncio.ensure_future(_running.start())
        engine = _running
        try:
            await asyncio.shield(engine._started)
        except Exception:
            # The next connection tries again.
            if _running is engine:
                _running = None
            raise
        return engine

    _started: asyncio.Future[None]

    async def start(self) -> None:
        await self.parts.bus.start()
        heartbeat = Heartbeat(
            self.parts.settings, self.connections, self.parts.departures, self.parts.tasks, self._abort
        )
        heartbeat.every(BEAT_SECONDS, self.departing.beat)
        heartbeat.every(SWEEP_SECONDS, self._sweep)
        heartbeat.every(REFRESH_SECONDS, self.parts.directory.refresh)
        heartbeat.every(REPAIR_SECONDS, self.parts.bus.repair)
        heartbeat.every(CHECK_SECONDS, self.gaps.check)
        heartbeat.every(PRUNE_SECONDS, self.parts.histories.prune)
        self._ticking = asyncio.create_task(heartbeat.run())
        self.services.open(self)

    async def stop(self) -> None:
        """Close what is open and let go of threads, tasks and connections to backends."""
        global _running
        if _running is self:
            _running = None
        if self._ticking is not None:
            self._ticking.cancel()
        for connection in list(self.connections):
            connection.close(CloseCode.SERVER_RESTART, "The server restarts.")
        self.crowds.stop()
        await self.services.hang_up()
        if self._ticking is not None:
            await self.departing.hand_over()
        await self.parts.tasks.settle()
        await self.parts.bus.stop()
        self.parts.directory.close()
        await self.parts.presence.close()
        await self.parts.histories.close()
        for pool in (self.parts.pool, self.parts.passwords, self._handlers):
            await asyncio.to_thread(pool.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Events of a connection --------------------------------------------------------------------------

    def attach(self, connection: Connection, abort: Callable[[], None]) -> None:
        """A socket was accepted that is in no application itself; its branches are (``branches.py``)."""
        self.connections[connection] = _Socket(abort)

    async def connect(self, connection: Connection, user: Any, abort: Callable[[], None]) -> None:
        """A socket was accepted; ``user`` is the handshake's Django user, ``abort`` ends it for good."""
        connection.heard = time.monotonic()
        socket = self.connections[connection] = _Socket(abort)
        application = await self.parts.directory.application(connection.application)
        door = connection.protocol.name
        if application is None or not application.record.lets_in(door):
            name = connection.application[:64]
            reason = f"Application {name} does not let in {door} clients."
            missing = f"There is no application {name}."
            connection.close(CloseCode.NO_SUCH_APPLICATION, missing if application is None else reason)
            return
        application.hooks.check_begun()
        most = application.record.max_connections_per_address
        address = f"{application.record.id} {connection.address}"
        if connection.address:
            if not self._addresses.add(address, most):
                connection.close(
                    CloseCode.TOO_MANY_CONNECTIONS, f"At most {most} connections come from one address."
                )
                return
            socket.address = address
        socket.application = application
        self.parts.hub.group_add(application.group, connection)
        await self.parts.bus.subscribe(application.group)
        application.add(connection)
        if application.hooks.has("on_receive"):
            connection.speak(connection.protocol.bare())
        if connection.protocol.anonymous:
            try:
                await self.logins.anonymous(connection, application, user)
            except RoomsError as error:
                if error.retry:
                    raise
                connection.close(CloseCode.NOT_PERMITTED, error.message)
                return
        elif user is not None and user.is_authenticated:
            await self.logins.by_session(connection, application, user)
        connection.send(
            Connected(
                connection=connection.id,
                application=application.record.name,
                user=connection.user,
                ping=round(self.parts.settings.ping_seconds),
                version=VERSION,
            )
        )
        socket.greeted = True
        if application.hooks.has("on_connect"):
            # Also when the socket ends meanwhile: who is told of its end is told of its beginning first.
            greeting = application.hooks.tell("on_connect", event_of(connection, connection.user))
            await asyncio.shield(self.parts.tasks.spawn(greeting))
        connection.waiting_for_login = None if connection.user else time.monotonic()

    async def logout(self, connection: Connection, request: Logout) -> None:
        user_of(connection)
        connection.hold()
        try:
            await self.membership.log_out(connection)
            await self.logins.logout(connection, request)
            application = await self.parts.application_of(connection)
            self.parts.hub.group_discard(application.watchers, connection)
        finally:
            connection.release()

    async def ping(self, connection: Connection, request: Ping) -> None:
        connection.send(Pong(id=request.id))

    async def pong(self, connection: Connection, request: Pong) -> None:
        """A sign of life, as any frame is."""

    async def quit(self, connection: Connection, request: Quit) -> None:
        connection.close(CloseCode.NORMAL, "Good bye.")

    def disconnect(self, connection: Connection) -> None:
        """The socket is gone, however it ended: everything it held is let go. Never waits."""
        socket = self.connections.pop(connection, None)
        if socket is None or (application := socket.application) is None:
            return
        if socket.address:
            self._addresses.remove(socket.address)
        user, event = connection.user, event_of(connection, connection.user)
        application.discard(connection)
        self.departing.disconnected(connection)
        if self.parts.hub.group_discard(application.group, connection):
            wanted = partial(self.parts.hub.__contains__, application.group)
            self.parts.tasks.spawn(self.parts.bus.unsubscribe(application.group, wanted))
        self.parts.hub.group_discard(application.watchers, connection)
        if user is not None:
            self.logins.disconnected(connection, application, user)
        if socket.greeted and application.hooks.has("on_disconnect"):
            self.parts.tasks.spawn(application.hooks.tell("on_disconnect", event))

    # From outside ------------------------------------------------------------------------------------

    def notice(self, notice: AnyNotice) -> None:
        """Something changed, said by another process or by this one."""
        self.parts.tasks.spawn(self.notices.handle(notice))

    async def tell(self, notice: AnyNotice) -> None:
        """Something changed: carry it out here and tell the other processes."""
        if self._ticking is not None:
            self.notice(notice)
        self.parts.bus.tell(notice)

    async def node_died(self, node: str) -> None:
        """The process whose engine's ``node`` that was is gone: its users fade. Many may say so."""
        await self.departing.node_died(node)

    def application_changed(self, application: LiveApplication) -> None:
        self.notices.application_changed(application)

    def room_changed(self, room: LiveRoom, old: RoomRecord) -> None:
        self.notices.room_changed(room, old)

    # Inside ------------------------------------------------------------------------------------------

    def _abort(self, connection: Connection) -> None:
        self.connections[connection].abort()

    async def _sweep(self) -> None:
        self.throttle.sweep()
        self.logins.sweep()
        self.parts.directory.sweep(self.parts.hub.__contains__)
        await self.management.sweep()
