"""What the operations of the engine share."""

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
from rooms.hub.connection import Connection, Membership
from rooms.hub.hub import Hub
from rooms.hub.write_scheduler import WriteScheduler
from rooms.node.broker import Broker
from rooms.node.registry import Application, Registry, Room
from rooms.node.user_connections import UserConnections
from rooms.presence import Presence
from rooms.protocol.errors import NotLoggedIn, NotMember, RoomNotFound, RoomsError
from rooms.protocol.types import User

logger = logging.getLogger("rooms.node")


class BackgroundTasks:
    """Work that nobody waits for, kept until it is done."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, RoomsError):
            logger.warning("Work in the background was put off: %s", error.message)
        else:
            logger.error("Work in the background failed", exc_info=error)

    async def settle(self) -> None:
        """Wait until all of it is done."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


# What a backend did not answer to is tried again after so many seconds; what failed in a way that nobody
# foresaw, so many times in all.
RETRY_SECONDS = 5
MOST_TRIES = 5
# Cleaning up is in no hurry and leaves the threads to those who wait for an answer.
MOST_AT_ONCE = 4


class DelayedActions:
    """What is to happen after a grace period; one look a second serves the whole process."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], Awaitable[None]]]] = []
        self._order = itertools.count()
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    def add(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), action))

    async def attempt(self, action: Callable[[], Awaitable[None]], tries: int = MOST_TRIES) -> None:
        """Carry it out now, and again later as long as a backend does not answer, or a few times when
        something else goes wrong."""
        try:
            await action()
        except RoomsError as error:
            if not error.retry:
                raise
            logger.warning("Put off for %s s: %s", RETRY_SECONDS, error.message)
            self.add(RETRY_SECONDS, action)
        except Exception:
            if tries > 1:
                logger.exception("Something failed; it is tried again in %s s", RETRY_SECONDS)
                self.add(RETRY_SECONDS, partial(self.attempt, action, tries - 1))
            else:
                logger.exception("Something failed for good")

    async def in_turn(self, action: Callable[[], Awaitable[None]]) -> None:
        """As ``attempt``, a few at a time."""
        async with self._turns:
            await self.attempt(action)

    def due(self) -> list[Callable[[], Awaitable[None]]]:
        """Take out what is due."""
        now = time.monotonic()
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """Everything that an operation works with."""

    settings: Settings
    hub: Hub
    bus: Broker
    directory: Registry
    presence: Presence
    histories: HistoryHandler
    pool: ThreadPool
    passwords: ThreadPool
    # Writes for all connections together; made in the running event loop.
    flusher: WriteScheduler = field(
        default_factory=lambda: WriteScheduler(asyncio.get_running_loop().call_soon)
    )
    tasks: BackgroundTasks = field(default_factory=BackgroundTasks)
    departures: DelayedActions = field(default_factory=DelayedActions)
    users: UserConnections = field(default_factory=UserConnections)
    # Of a user in a group: coming in and going out exclude each other, with what is told of it.
    places: Locks = field(default_factory=Locks)

    async def run_to_completion(self, action: Callable[[], Awaitable[None]]) -> None:
        """Wait for something that has to be done in the end, also when nobody waits any more."""
        await asyncio.shield(self.tasks.spawn(self.departures.attempt(action)))

    async def check_room_exists(self, connection: Connection, name: str) -> None:
        """Raises RoomNotFound for protocols to which that is another error than not being in a room."""
        if connection.protocol.options.reports_missing_rooms:
            await self.directory.room(await self.application_of(connection), name)

    async def application_of(self, connection: Connection) -> Application:
        """The application that a connection is in. Raises RoomNotFound when it is gone."""
        live = await self.directory.application(connection.application)
        if live is None:
            raise RoomNotFound("This application is not open any more.")
        return live


async def room_of(parts: NodeContext, connection: Connection, name: str) -> Room:
    """The room, for those who are in it. Raises NotMember."""
    user_of(connection)
    if name not in connection.memberships:
        await parts.check_room_exists(connection, name)
        raise NotMember(f"You are not in {name}.")
    room = parts.directory.known_room(connection.application, name)
    if room is None or not room.application.record.enabled:
        room = await parts.directory.room(await parts.application_of(connection), name)
    if membership_in(connection, room) is None:
        raise NotMember(f"You are not in {name}.")
    return room


def user_of(connection: Connection) -> User:
    """Who this is. Raises NotLoggedIn."""
    if connection.user is None:
        raise NotLoggedIn("Log in first.")
    return connection.user


def event_of(connection: Connection, user: User | None) -> ConnectionEvent:
    """What extensions are told of a connection."""
    return ConnectionEvent(
        connection.application,
        connection.id,
        connection.address,
        user,
        number=connection.number,
        claims=connection.claims,
    )


def membership_in(connection: Connection, room: Room) -> Membership | None:
    """The connection's place in this very room, and not in an earlier one of the same name."""
    place = connection.memberships.get(room.name)
    return place if place is not None and place.group == room.group else None
