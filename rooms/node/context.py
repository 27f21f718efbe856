"""What the operations of a node share.

These are its components, background tasks and retried actions.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rooms.concurrency.locks import Locks
from rooms.concurrency.thread_pool import ThreadPool
from rooms.conf import Settings
from rooms.extensions import ConnectionEvent
from rooms.histories import HistoryHandler
from rooms.hub.application import Application
from rooms.hub.connection import Connection, Membership
from rooms.hub.group import Hub
from rooms.hub.room import Room
from rooms.node.broker import Broker
from rooms.node.registry import Registry
from rooms.presence import Presence
from rooms.protocol.errors import NotLoggedIn, NotMember, RoomNotFound, RoomsError
from rooms.protocol.types import User

logger = logging.getLogger("rooms.node")

# An action is retried after this many seconds while a backend is down; after an unexpected error at
# most this many times in all.
RETRY_SECONDS = 5
MAX_TRIES = 5
# Clean-up is not urgent: it leaves the threads to commands that wait for a reply.
MAX_CONCURRENT = 4


class BackgroundTasks:
    """Tasks that no caller waits for, kept until they are done."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def drain(self) -> None:
        """Wait until all of them are done."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, RoomsError):
            logger.warning("Background work was postponed: %s", error.message)
        else:
            logger.error("Background work failed", exc_info=error)


class DelayedActions:
    """Actions for later, such as the end of a grace period.

    One check a second serves the process.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], Awaitable[None]]]] = []
        self._order = itertools.count()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    def add(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), action))

    async def run_with_retry(self, action: Callable[[], Awaitable[None]], tries: int = MAX_TRIES) -> None:
        """Run an action now, and again later while a backend is down.

        After an unexpected error it runs ``tries`` times in all.
        """
        try:
            await action()
        except RoomsError as error:
            if not error.retry:
                raise
            logger.warning("Retried in %s s: %s", RETRY_SECONDS, error.message)
            self.add(RETRY_SECONDS, action)
        except Exception:
            if tries > 1:
                logger.exception("An action failed; it is retried in %s s", RETRY_SECONDS)
                self.add(RETRY_SECONDS, partial(self.run_with_retry, action, tries - 1))
            else:
                logger.exception("An action failed for the last time")

    async def run_in_slot(self, action: Callable[[], Awaitable[None]]) -> None:
        """As ``run_with_retry``, a few actions at a time."""
        async with self._slots:
            await self.run_with_retry(action)

    def pop_due(self) -> list[Callable[[], Awaitable[None]]]:
        now = time.monotonic()
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """The components that an operation works with."""

    settings: Settings
    hub: Hub
    broker: Broker
    registry: Registry
    presence: Presence
    histories: HistoryHandler
    pool: ThreadPool
    # Checking passwords is slow on purpose, and has threads of its own.
    password_pool: ThreadPool
    tasks: BackgroundTasks = field(default_factory=BackgroundTasks)
    delayed: DelayedActions = field(default_factory=DelayedActions)
    # The joins and leaves of one user in a room exclude each other, with the events that announce them.
    # By the room's key and the user's id: a room that is renamed or loaded again has another object.
    user_locks: Locks = field(default_factory=Locks)

    async def run_to_completion(self, action: Callable[[], Awaitable[None]]) -> None:
        """Wait for an action that is completed in any case.

        The action also goes on when the caller is cancelled.
        """
        await asyncio.shield(self.tasks.spawn(self.delayed.run_with_retry(action)))

    def spawn_with_retry(self, action: Callable[[], Awaitable[None]]) -> None:
        self.tasks.spawn(self.delayed.run_with_retry(action))

    async def application_of(self, connection: Connection) -> Application:
        """Return the application of a connection. Raises RoomNotFound when it is gone."""
        application: Application | None = connection.entered
        if application is None or not application.config.enabled:
            application = await self.registry.application(connection.application)
        if application is None:
            raise RoomNotFound("This application is disabled or deleted.")
        return application

    async def check_room_exists(self, connection: Connection, name: str) -> None:
        """Raise RoomNotFound for protocols where that differs from not being a member."""
        if connection.protocol.options.reports_missing_rooms:
            await self.registry.room(await self.application_of(connection), name)

    async def require_membership(self, connection: Connection, name: str) -> Membership[Room]:
        """Return the connection's membership in the room of that name. Raises NotMember."""
        require_user(connection)
        membership: Membership[Room] | None = connection.memberships.get(name)
        if membership is None:
            await self.check_room_exists(connection, name)
            raise NotMember(f"You are not a member of {name}.")
        if not membership.room.is_open:
            await self.registry.room(await self.application_of(connection), name)
            raise NotMember(f"You are not a member of {name}.")
        return membership


def require_user(connection: Connection) -> User:
    """Return the user of a connection. Raises NotLoggedIn."""
    if connection.user is None:
        raise NotLoggedIn("Log in first.")
    return connection.user


def membership_in(connection: Connection, room: Room) -> Membership[Room] | None:
    """Return the connection's membership in this room.

    A membership in an earlier room of the same name does not count.
    """
    membership: Membership[Room] | None = connection.memberships.get(room.name)
    return membership if membership is not None and membership.room.key == room.key else None


def connection_event(connection: Connection, user: User | None) -> ConnectionEvent:
    """Return the event about a connection that extensions receive."""
    return ConnectionEvent(
        connection.application,
        connection.id,
        connection.address,
        user,
        number=connection.number,
        claims=connection.claims,
    )
