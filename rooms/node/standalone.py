"""Publishes from a process without sockets: a WSGI worker, a task queue, a shell.

One per process, created with the first call. Its event loop runs in a thread of its own; it has
no extensions and no lease of presence. It is created again after a fork, and closed at exit.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from rooms.concurrency.thread_pool import QUERY_TIMEOUT, ThreadPool
from rooms.conf import get_settings, load_backend
from rooms.histories import HistoryHandler
from rooms.hub.config import ApplicationConfig, RoomConfig, room_group
from rooms.hub.connection import Connection
from rooms.node import config
from rooms.node import current as current_node
from rooms.node.broker import Broker
from rooms.node.control_messages import AnyControlMessage
from rooms.node.publisher import Publisher
from rooms.presence import Presence
from rooms.protocol import validators
from rooms.protocol.commands import CreateRoom
from rooms.protocol.errors import RoomExists, RoomNotFound
from rooms.protocol.events import Event, Message
from rooms.protocol.types import User

logger = logging.getLogger("rooms.node")
T = TypeVar("T")

CLOSE_TIMEOUT = 10.0

_current: StandalonePublisher | None = None
_lock = threading.Lock()
# What a fork left in this process.
_of_parents: list[object] = []


class RemoteRoom:
    """A room without members in this process: the broker alone carries its events."""

    def __init__(self, config: RoomConfig) -> None:
        self.config = config
        self.key = room_group(config.id)

    @property
    def name(self) -> str:
        return self.config.name

    def broadcast(
        self,
        event: Event,
        *,
        exclude: Connection | None = None,
        only: Any = None,
        volatile: bool = False,
    ) -> None:
        """Do nothing: there are no members here."""


class StandalonePublisher:
    """Its coroutines run in its own event loop: use ``call`` and ``acall``."""

    def __init__(self) -> None:
        self.settings = get_settings()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rooms-publisher", daemon=True)
        self._thread.start()
        try:
            self.call(self._open(), None)
        except BaseException:
            self._end_loop()
            raise

    async def _open(self) -> None:
        settings = self.settings
        self._presence: Presence = load_backend(settings.presence)
        self._histories = HistoryHandler(settings.histories)
        self._broker = Broker(settings.channel_layer, self._presence.node)
        self._pool = ThreadPool(settings.thread_pool_size, settings.thread_pool_queue, timeout=QUERY_TIMEOUT)
        self._publisher = Publisher(settings, self._histories, self._presence, self._broker)

    # From other threads ------------------------------------------------------------------------------

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None) -> T:
        """Run a coroutine, and wait for its result.

        What the coroutine published is handed to the channel layer.
        """
        return asyncio.run_coroutine_threadsafe(self._flushed(work), self._loop).result(timeout)

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        """As ``call``, from any event loop."""
        future = asyncio.run_coroutine_threadsafe(self._flushed(work), self._loop)
        return await asyncio.wrap_future(future)

    async def _flushed(self, work: Coroutine[Any, Any, T]) -> T:
        result = await work
        if hasattr(self, "_broker"):
            # The process may end right after the call.
            await self._broker.flush()
        return result

    def close(self) -> None:
        """Hand over what is pending, and end the threads and connections to backends."""
        self._end(self._close())

    def close_at_exit(self) -> None:
        """Leave the channel layer. The interpreter has ended all thread pools by then."""
        self._end(self._broker.stop())

    def _end(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run_coroutine_threadsafe(_finish(work), self._loop).result(CLOSE_TIMEOUT)
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT)
        if not self._thread.is_alive():
            self._loop.close()

    async def _close(self) -> None:
        await self._broker.stop()
        await self._presence.close()
        await self._histories.close()
        await asyncio.to_thread(self._pool.close)

    # In its event loop -------------------------------------------------------------------------------

    async def publish(
        self,
        application: str,
        room: str,
        data: Any,
        *,
        event: str,
        to: str | Sequence[str] | None,
        state: bool,
        volatile: bool,
    ) -> Message:
        """Publish a message as the server; see ``rooms.api.publish``."""
        name = validators.room_name(room)
        found = await self._find(application, name) or await self._create(application, name)
        return await self._publisher.publish(
            RemoteRoom(found), data, event=event, to=to, state=state, volatile=volatile
        )

    async def members(self, application: str, room: str) -> list[User]:
        found = await self._require(application, room)
        return (await self._presence.members(room_group(found.id))).users

    async def history(self, application: str, room: str, limit: int) -> list[Message]:
        found = await self._require(application, room)
        history = self._histories[found.history]
        return (await history.page(found, before=None, after=None, limit=limit)).messages

    async def send_control(self, message: AnyControlMessage) -> None:
        """Send a control message to every node."""
        self._broker.send_control(message)

    async def _find(self, application: str, room: str) -> RoomConfig | None:
        return await self._pool.run(config.load_room_to_publish, application, room)

    async def _require(self, application: str, room: str) -> RoomConfig:
        found = await self._find(application, room)
        if found is None:
            await self._application(application)
            raise RoomNotFound(f"There is no room {room}.")
        return found

    async def _create(self, application: str, room: str) -> RoomConfig:
        """Create a room on demand, where the application allows it. Raises RoomNotFound."""
        owner = await self._application(application)
        if not owner.rooms_on_demand:
            raise RoomNotFound(f"There is no room {room}.")
        # Another process may create it at the same time.
        with contextlib.suppress(RoomExists):
            await self._pool.run(config.create_room, owner, CreateRoom(room=room), None)
        return await self._require(application, room)

    async def _application(self, name: str) -> ApplicationConfig:
        found = await self._pool.run(config.load_application, name)
        if found is None or not found.enabled:
            raise RoomNotFound(f"There is no application {name}.")
        return found


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Do the last work of an event loop, and end its tasks.

    A channel layer may have tasks.
    """
    try:
        await work
    finally:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def current() -> StandalonePublisher:
    """Return the publisher of this process."""
    global _current
    with _lock:
        if _current is not None and _current.settings is not get_settings():
            # The settings changed, which happens in tests.
            _current.close()
            _current = None
        if _current is None:
            _current = StandalonePublisher()
        return _current


def close() -> None:
    """Close the publisher of this process, if there is one.

    The next call creates another.
    """
    global _current
    with _lock:
        publisher, _current = _current, None
    if publisher is not None:
        publisher.close()


def _close_at_exit() -> None:
    if _current is not None:
        try:
            _current.close_at_exit()
        except Exception as error:
            logger.warning("The publisher could not be closed: %r", error)


def _forget() -> None:
    """After a fork: the parent's threads and event loops do not run in the child."""
    global _current, _lock
    # Kept: to delete them here could end connections that the parent goes on to use.
    _of_parents.append((_current, current_node.node))
    _current, _lock, current_node.node = None, threading.Lock(), None


os.register_at_fork(after_in_child=_forget)
atexit.register(_close_at_exit)
