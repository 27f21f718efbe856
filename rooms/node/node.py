"""The engine of one process: puts the parts together, starts and stops them.

The operations stand beside it, a file for each subject: ``logins``, ``membership``, ``messages``,
``management``; ``notices`` is what changes from outside do. One engine belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeAlias

from rooms.concurrency.rate_limits import ConnectionCounter
from rooms.concurrency.thread_pool import QUERY_TIMEOUT, ThreadPool
from rooms.conf import Settings, get_settings, load_backend
from rooms.histories import PRUNE_SECONDS, HistoryHandler
from rooms.hub.config import RoomConfig
from rooms.hub.connection import Connection
from rooms.hub.hub import Hub
from rooms.node.auth import Authenticator
from rooms.node.broker import Broker
from rooms.node.context import NodeContext, event_of, user_of
from rooms.node.control_messages import AnyControlMessage
from rooms.node.direct import DirectMessages
from rooms.node.invalidation import Invalidation
from rooms.node.join import Membership
from rooms.node.leave import LeaveHandler
from rooms.node.outbound import ClientSocket, OutboundConnection
from rooms.node.periodic import PeriodicTasks
from rooms.node.presence_diffs import PresenceDiffs
from rooms.node.publish import MessageHandler
from rooms.node.queries import RoomQueries
from rooms.node.recovery import CHECK_SECONDS, Recovery
from rooms.node.registry import Application, Registry, Room
from rooms.node.room_lifecycle import RoomLifecycle
from rooms.node.services import NodeServices
from rooms.node.throttle import Throttle
from rooms.presence.base import HEARTBEAT_SECONDS, Presence
from rooms.protocol.commands import Logout, Ping, Pong
from rooms.protocol.compat_commands import Disconnect
from rooms.protocol.errors import CloseCode, RoomsError
from rooms.protocol.events import Connected
from rooms.protocol.native import VERSION

SWEEP_SECONDS, REFRESH_SECONDS, REPAIR_SECONDS = 60, 30, 2

_running: Node | None = None

# Serves the socket of a connection that an extension opened; ``consumers.py`` has the one that there is.
ServeOutbound: TypeAlias = "Callable[[Node, OutboundConnection, ClientSocket], Coroutine[Any, Any, None]]"


@dataclass(slots=True)
class _Socket:
    """What the engine keeps of a connection: how to end it, and what it is counted in."""

    abort: Callable[[], None]
    application: Application | None = None
    address: str = ""
    greeted: bool = False


class Node:
    """Made in a running event loop. ``start`` takes a seat on the channel layer and begins to listen;
    an engine that was not started can still publish, which is what other processes do."""

    def __init__(
        self, settings: Settings | None = None, *, serve_outbound: ServeOutbound | None = None
    ) -> None:
        settings = settings or get_settings()
        self.loop = asyncio.get_running_loop()
        presence: Presence = load_backend(settings.presence)
        self.node = presence.node
        self.connections: dict[Connection, _Socket] = {}
        self._handlers = ThreadPool(settings.thread_pool_size, settings.thread_pool_queue, "rooms-handlers")
        pool = ThreadPool(settings.thread_pool_size, settings.thread_pool_queue, timeout=QUERY_TIMEOUT)
        self.services = NodeServices(self.loop)
        self._serve_outbound = serve_outbound
        self.parts = NodeContext(
            settings=settings,
            hub=Hub(
                lambda group: self.gaps.found(group),
                lambda group: self.crowds.gathers(group),
                settings.presence_diff_threshold,
                lambda batch: self.parts.flusher.add(batch),
            ),
            bus=Broker(
                settings.channel_layer, self.node, lambda *it: self.speaking.relayed(*it), self.notice
            ),
            directory=Registry(pool, self._handlers, self.services, self, settings.handler_timeout),
            presence=presence,
            histories=HistoryHandler(settings.histories),
            pool=pool,
            passwords=ThreadPool(2, 32, "rooms-passwords"),
        )
        self.management = RoomLifecycle(self.parts)
        self.departing = LeaveHandler(self.parts, self.management)
        self.membership = Membership(self.parts, self.management, self.departing)
        self.messages = MessageHandler(self.parts)
        self.reading = RoomQueries(self.parts)
        self.gaps = Recovery(self.parts)
        self.crowds = PresenceDiffs(self.parts)
        self.services.serve(self.parts, self.management, self.messages)
        self.speaking = DirectMessages(self.parts, self.messages)
        self.logins = Authenticator(self.parts)
        self.notices = Invalidation(self.parts, self.departing, self.management)
        self.throttle = Throttle(self.parts.directory, settings.request_rate, settings.request_burst)
        self._addresses = ConnectionCounter()
        self._ticking: asyncio.Task[None] | None = None

    # Life --------------------------------------------------------------------------------------------

    @classmethod
    def running(cls) -> Node | None:
        """The engine that serves this process's sockets, if one does."""
        return _running

    @classmethod
    async def serving(cls, serve_outbound: ServeOutbound | None = None) -> Node:
        """The running engine of this event loop, started with the first connection; without
        ``serve_outbound`` its extensions open no connections."""
        global _running
        if _running is None or _running.loop is not asyncio.get_running_loop():
            _running = cls(serve_outbound=serve_outbound)
            _running._started = asyncio.ensure_future(_running.start())
        node = _running
        try:
            await asyncio.shield(node._started)
        except Exception:
            # The next connection tries again.
            if _running is node:
                _running = None
            raise
        return node

    _started: asyncio.Future[None]

    async def start(self) -> None:
        await self.parts.bus.start()
        heartbeat = PeriodicTasks(
            self.parts.settings, self.connections, self.parts.departures, self.parts.tasks, self._abort
        )
        heartbeat.every(HEARTBEAT_SECONDS, self.departing.beat)
        heartbeat.every(SWEEP_SECONDS, self._sweep)
        heartbeat.every(REFRESH_SECONDS, self.parts.directory.refresh)
        heartbeat.every(REPAIR_SECONDS, self.parts.bus.repair)
        heartbeat.every(CHECK_SECONDS, self.gaps.check)
        heartbeat.every(PRUNE_SECONDS, self.parts.histories.prune)
        self._ticking = asyncio.create_task(heartbeat.run())
        if self._serve_outbound is not None:
            self.services.start_outbound(partial(self._serve_outbound, self))

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
        await self.services.close_outbound()
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
        """A socket was accepted that is in no application itself; its branches are (``compat/multiplex.py``)."""
        self.connections[connection] = _Socket(abort)

    async def connect(self, connection: Connection, user: Any, abort: Callable[[], None]) -> None:
        """A socket was accepted; ``user`` is the handshake's Django user, ``abort`` ends it for good."""
        connection.heard = time.monotonic()
        socket = self.connections[connection] = _Socket(abort)
        application = await self.parts.directory.application(connection.application)
        protocol = connection.protocol.name
        if application is None or not application.record.allows_protocol(protocol):
            name = connection.application[:64]
            reason = f"Application {name} does not let in {protocol} clients."
            missing = f"There is no application {name}."
            connection.close(CloseCode.NO_SUCH_APPLICATION, missing if application is None else reason)
            return
        application.hooks.ensure_ready()
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
        if application.hooks.handles("on_receive"):
            connection.speak(connection.protocol.raw())
        if connection.protocol.options.anonymous:
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
                ping=round(self.parts.settings.ping_interval),
                version=VERSION,
            )
        )
        socket.greeted = True
        if application.hooks.handles("on_connect"):
            # Also when the socket ends meanwhile: who is told of its end is told of its beginning first.
            greeting = application.hooks.notify("on_connect", event_of(connection, connection.user))
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

    async def quit(self, connection: Connection, request: Disconnect) -> None:
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
        if socket.greeted and application.hooks.handles("on_disconnect"):
            self.parts.tasks.spawn(application.hooks.notify("on_disconnect", event))

    # From outside ------------------------------------------------------------------------------------

    def notice(self, notice: AnyControlMessage) -> None:
        """Something changed, said by another process or by this one."""
        self.parts.tasks.spawn(self.notices.handle(notice))

    async def tell(self, notice: AnyControlMessage) -> None:
        """Something changed: carry it out here and tell the other processes."""
        if self._ticking is not None:
            self.notice(notice)
        self.parts.bus.tell(notice)

    async def node_died(self, node: str) -> None:
        """The process whose engine's ``node`` that was is gone: its users fade. Many may say so."""
        await self.departing.node_died(node)

    def application_changed(self, application: Application) -> None:
        self.notices.application_changed(application)

    def room_changed(self, room: Room, old: RoomConfig) -> None:
        self.notices.room_changed(room, old)

    # Inside ------------------------------------------------------------------------------------------

    def _abort(self, connection: Connection) -> None:
        self.connections[connection].abort()

    async def _sweep(self) -> None:
        self.throttle.sweep()
        self.logins.sweep()
        self.parts.directory.sweep(self.parts.hub.__contains__)
        await self.management.sweep()
