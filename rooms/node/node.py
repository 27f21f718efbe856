"""The engine of one process that serves sockets: components, start and stop.

The operations are beside it, one module for each subject: ``auth``, ``join``, ``leave``, ``publish``,
``direct``, ``queries``, ``recovery``, ``room_lifecycle``; ``invalidation`` applies changes from outside.
A node belongs to one event loop.
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
from rooms.hub.application import Application
from rooms.hub.config import RoomConfig
from rooms.hub.connection import Connection
from rooms.hub.group import Hub
from rooms.hub.room import Room
from rooms.hub.write_scheduler import WriteScheduler
from rooms.node import current
from rooms.node.auth import Authenticator
from rooms.node.broker import Broker, BrokerMessage
from rooms.node.context import NodeContext, connection_event, require_user
from rooms.node.control_messages import AnyControlMessage, RoomChanged
from rooms.node.direct import DirectMessages
from rooms.node.invalidation import Invalidation
from rooms.node.join import JoinHandler
from rooms.node.leave import LeaveHandler
from rooms.node.outbound import ClientSocket, OutboundConnection
from rooms.node.periodic import PeriodicTasks
from rooms.node.presence_events import PresenceDiffs, PresenceEvents
from rooms.node.publish import MessageHandler
from rooms.node.publisher import Publisher
from rooms.node.queries import RoomQueries
from rooms.node.recovery import CHECK_SECONDS, Recovery
from rooms.node.registry import Registry
from rooms.node.room_lifecycle import RoomLifecycle
from rooms.node.services import NodeServices
from rooms.node.throttle import Throttle
from rooms.presence.base import HEARTBEAT_SECONDS, Presence
from rooms.protocol.commands import Logout, Ping, Pong
from rooms.protocol.compat_commands import Disconnect
from rooms.protocol.errors import CloseCode, RoomsError
from rooms.protocol.events import Connected, Direct
from rooms.protocol.native import VERSION

SWEEP_SECONDS, REFRESH_SECONDS, REPAIR_SECONDS = 60, 30, 2

# Serves the socket of a connection that an extension opened: ``consumers.serve_outbound``.
ServeOutbound: TypeAlias = "Callable[[Node, OutboundConnection, ClientSocket], Coroutine[Any, Any, None]]"


@dataclass(slots=True)
class _Socket:
    """What the node keeps of a connection: how to end it, and where it is counted."""

    abort: Callable[[], None]
    application: Application | None = None
    address: str = ""
    connected: bool = False


class Node:
    """Created in a running event loop; ``start`` joins the channel layer.

    It is the listener of its rooms, its registry and its broker.
    """

    def __init__(
        self, settings: Settings | None = None, *, serve_outbound: ServeOutbound | None = None
    ) -> None:
        settings = settings or get_settings()
        self.loop = asyncio.get_running_loop()
        presence: Presence = load_backend(settings.presence)
        self.id = presence.node
        self.connections: dict[Connection, _Socket] = {}
        self._handlers = ThreadPool(settings.thread_pool_size, settings.thread_pool_queue, "rooms-handlers")
        pool = ThreadPool(settings.thread_pool_size, settings.thread_pool_queue, timeout=QUERY_TIMEOUT)
        hub = Hub(WriteScheduler(self.loop.call_soon))
        self.services = NodeServices(self)
        self._serve_outbound = serve_outbound
        self.context = context = NodeContext(
            settings=settings,
            hub=hub,
            broker=Broker(settings.channel_layer, self.id, listener=self),
            registry=Registry(settings, hub, pool, self._handlers, self.services, listener=self),
            presence=presence,
            histories=HistoryHandler(settings.histories),
            pool=pool,
            password_pool=ThreadPool(2, 32, "rooms-passwords"),
        )
        self.publisher = Publisher(settings, context.histories, presence, context.broker)
        self.lifecycle = RoomLifecycle(context)
        self.presence_events = PresenceEvents(context)
        self.presence_diffs = PresenceDiffs(context)
        self.leave = LeaveHandler(context, self.lifecycle, self.presence_events)
        self.join = JoinHandler(context, self.lifecycle, self.leave, self.presence_events)
        self.messages = MessageHandler(context, self.publisher)
        self.direct = DirectMessages(context, self.messages, self.publisher)
        self.queries = RoomQueries(context)
        self.recovery = Recovery(context)
        self.auth = Authenticator(context)
        self.invalidation = Invalidation(context, self.leave, self.lifecycle)
        self.throttle = Throttle(context.registry, settings.request_rate, settings.request_burst)
        self._addresses = ConnectionCounter()
        self._periodic: asyncio.Task[None] | None = None

    # Start and stop ----------------------------------------------------------------------------------

    @classmethod
    def current(cls) -> Node | None:
        """Return the node that serves this process's sockets, if there is one."""
        return current.node if isinstance(current.node, cls) else None

    @classmethod
    async def get_or_start(cls, serve_outbound: ServeOutbound | None = None) -> Node:
        """Return the node of this event loop, started with the first connection.

        Without ``serve_outbound`` its extensions open no connections.
        """
        node = cls.current()
        if node is None or node.loop is not asyncio.get_running_loop():
            node = current.node = cls(serve_outbound=serve_outbound)
            node._started = asyncio.ensure_future(node.start())
        try:
            await asyncio.shield(node._started)
        except Exception:
            # The next connection tries again.
            if current.node is node:
                current.node = None
            raise
        return node

    _started: asyncio.Future[None]

    async def start(self) -> None:
        context = self.context
        await context.broker.start()
        periodic = PeriodicTasks(context, self.connections, self._abort)
        periodic.every(HEARTBEAT_SECONDS, self.leave.heartbeat)
        periodic.every(SWEEP_SECONDS, self._sweep)
        periodic.every(REFRESH_SECONDS, context.registry.refresh)
        periodic.every(REPAIR_SECONDS, context.broker.repair)
        periodic.every(CHECK_SECONDS, self.recovery.check)
        periodic.every(PRUNE_SECONDS, context.histories.prune)
        self._periodic = asyncio.create_task(periodic.run())
        if self._serve_outbound is not None:
            self.services.start_outbound(partial(self._serve_outbound, self))

    async def stop(self) -> None:
        """Close all connections, and end threads, tasks and connections to backends."""
        if current.node is self:
            current.node = None
        context = self.context
        if self._periodic is not None:
            self._periodic.cancel()
        for connection in list(self.connections):
            connection.close(CloseCode.SERVER_RESTART, "The server restarts.")
        self.presence_diffs.stop()
        await self.services.close_outbound()
        if self._periodic is not None:
            await self.leave.hand_over()
        await context.tasks.drain()
        await context.broker.stop()
        context.registry.close()
        await context.presence.close()
        await context.histories.close()
        for pool in (context.pool, context.password_pool, self._handlers):
            await asyncio.to_thread(pool.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Connections -------------------------------------------------------------------------------------

    def attach(self, connection: Connection, abort: Callable[[], None]) -> None:
        """Register an accepted socket that is in no application itself.

        ``compat/multiplex.py`` has such sockets.
        """
        self.connections[connection] = _Socket(abort)

    async def connect(self, connection: Connection, user: Any, abort: Callable[[], None]) -> None:
        """Register an accepted socket and enter its application.

        ``user`` is the Django user of the handshake; ``abort`` ends the socket at once.
        """
        connection.last_seen = time.monotonic()
        socket = self.connections[connection] = _Socket(abort)
        application = await self._enter_application(connection, socket)
        if application is None or not await self._log_in(connection, application, user):
            return
        connection.send(
            Connected(
                connection=connection.id,
                application=application.config.name,
                user=connection.user,
                ping=round(self.context.settings.ping_interval),
                version=VERSION,
            )
        )
        socket.connected = True
        if application.runner.handles("on_connect"):
            # To its end also when the socket ends meanwhile: on_disconnect follows on_connect.
            event = connection_event(connection, connection.user)
            await asyncio.shield(self.context.tasks.spawn(application.runner.notify("on_connect", event)))
        connection.waiting_for_login = None if connection.user else time.monotonic()

    async def _enter_application(self, connection: Connection, socket: _Socket) -> Application | None:
        """Add a connection to its application.

        Where this is not allowed, the connection is closed, and None is returned.
        """
        application = await self.context.registry.application(connection.application)
        protocol = connection.protocol.name
        if application is None or not application.config.allows_protocol(protocol):
            name = connection.application[:64]
            reason = f"Application {name} does not accept {protocol} clients."
            missing = f"There is no application {name}."
            connection.close(CloseCode.NO_SUCH_APPLICATION, missing if application is None else reason)
            return None
        application.runner.ensure_ready()
        limit = application.config.max_connections_per_address
        address = f"{application.config.id} {connection.address}"
        if connection.address:
            if not self._addresses.add(address, limit):
                connection.close(
                    CloseCode.TOO_MANY_CONNECTIONS, f"Expected at most {limit} connections from one address."
                )
                return None
            socket.address = address
        socket.application = application
        application.add(connection)
        await self.context.broker.subscribe(application.key)
        if application.runner.handles("on_receive"):
            connection.switch_protocol(connection.protocol.raw())
        return application

    async def _log_in(self, connection: Connection, application: Application, user: Any) -> bool:
        """Log in the user of the handshake.

        Where the login is refused, the connection is closed, and False is returned.
        """
        if connection.protocol.options.anonymous:
            try:
                await self.auth.anonymous(connection, application, user)
            except RoomsError as error:
                if error.retry:
                    raise
                connection.close(CloseCode.NOT_PERMITTED, error.message)
                return False
        elif user is not None and user.is_authenticated:
            await self.auth.by_session(connection, application, user)
        return True

    async def logout(self, connection: Connection, command: Logout) -> None:
        require_user(connection)
        connection.cork()
        try:
            await self.leave.log_out(connection)
            await self.auth.logout(connection, command)
            application = await self.context.application_of(connection)
            application.room_list.discard(connection)
        finally:
            connection.uncork()

    async def ping(self, connection: Connection, command: Ping) -> None:
        connection.send(Pong(id=command.id))

    async def pong(self, connection: Connection, command: Pong) -> None:
        """Do nothing: every frame is a sign of life."""

    async def quit(self, connection: Connection, command: Disconnect) -> None:
        connection.close(CloseCode.NORMAL, "Good bye.")

    def disconnect(self, connection: Connection) -> None:
        """Clean up after a socket, however it ended. Returns at once."""
        socket = self.connections.pop(connection, None)
        if socket is None or (application := socket.application) is None:
            return
        if socket.address:
            self._addresses.remove(socket.address)
        user, event = connection.user, connection_event(connection, connection.user)
        self.leave.disconnected(connection)
        if application.discard(connection):
            still_used = partial(_has_members, application)
            self.context.tasks.spawn(self.context.broker.unsubscribe(application.key, still_used))
        if user is not None:
            self.auth.disconnected(connection, application, user)
        if socket.connected and application.runner.handles("on_disconnect"):
            self.context.tasks.spawn(application.runner.notify("on_disconnect", event))

    # Control messages --------------------------------------------------------------------------------

    async def send_control(self, message: AnyControlMessage) -> None:
        """Act on a control message, and send it to the other nodes."""
        if self._periodic is not None:
            self.on_control(message)
        self.context.broker.send_control(message)

    async def node_died(self, node_id: str) -> None:
        """Give the users of a dead process a grace period. Several nodes may do so."""
        await self.leave.node_died(node_id)

    # Listener ----------------------------------------------------------------------------------------

    def on_event(self, key: str, message: BrokerMessage) -> None:
        event, registry = message.event, self.context.registry
        if isinstance(event, Direct):
            for application in registry.applications():
                if application.key == key:
                    for user in message.only or ():
                        application.send_to_user(user, event)
        elif (room := registry.room_by_key(key)) is not None:
            room.broadcast(event, only=message.only, volatile=message.volatile)

    def on_control(self, message: AnyControlMessage) -> None:
        self.context.tasks.spawn(self.invalidation.handle(message))

    def on_gap(self, room: Room) -> None:
        self.recovery.fill(room)

    def on_presence_change(self, room: Room) -> None:
        self.presence_diffs.add(room)

    def on_application_changed(self, application: Application) -> None:
        self.invalidation.apply_application(application)

    def on_room_changed(self, room: Room, old: RoomConfig) -> None:
        self.invalidation.apply_room(room, old)

    def on_change_missed(self, message: RoomChanged) -> None:
        self.on_control(message)

    # Inside ------------------------------------------------------------------------------------------

    def _abort(self, connection: Connection) -> None:
        self.connections[connection].abort()

    async def _sweep(self) -> None:
        self.throttle.sweep()
        self.auth.sweep()
        self.context.registry.sweep()
        await self.lifecycle.sweep()


def _has_members(application: Application) -> bool:
    return bool(application.members.members)
