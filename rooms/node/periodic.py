"""One look a second at everything that waits for time to pass, for the whole process.

Heartbeats, deadlines, grace periods, leases: no connection has a timer or a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection

from rooms.conf import Settings
from rooms.hub.connection import Connection
from rooms.node.context import BackgroundTasks, DelayedActions
from rooms.protocol.commands import Ping
from rooms.protocol.errors import CloseCode, RoomsError

logger = logging.getLogger("rooms.node")

TICK_SECONDS = 1.0
# After the last word a connection gets so long to hear it; then its task is ended.
CLOSE_SECONDS = 5.0


class PeriodicTasks:
    """``abort`` ends a connection that cannot even be closed."""

    def __init__(
        self,
        settings: Settings,
        connections: Collection[Connection],
        departures: DelayedActions,
        tasks: BackgroundTasks,
        abort: Callable[[Connection], None],
    ) -> None:
        self._settings = settings
        self._connections = connections
        self._departures = departures
        self._tasks = tasks
        self._abort = abort
        self._regular: list[tuple[float, Callable[[], Awaitable[object]]]] = []
        self._next: list[float] = []

    def every(self, seconds: float, action: Callable[[], Awaitable[object]]) -> None:
        """Have something done again and again; a little earlier or later, so that processes spread."""
        self._regular.append((seconds, action))
        self._next.append(time.monotonic() + seconds * random.uniform(0.6, 1.4))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for connection in list(self._connections):
                self._look_at(connection, now)
            for action in self._departures.due():
                self._tasks.spawn(self._departures.in_turn(action))
            for place, (seconds, regular) in enumerate(self._regular):
                if self._next[place] <= now:
                    self._next[place] = now + seconds * random.uniform(0.6, 1.4)
                    self._tasks.spawn(_carried_out(regular))

    def _look_at(self, connection: Connection, now: float) -> None:
        settings = self._settings
        writing = connection.writing_since
        if connection.close_code is not None:
            if writing is not None and now - writing > CLOSE_SECONDS:
                self._abort(connection)
        elif writing is not None and now - writing > settings.write_timeout:
            connection.close(CloseCode.SLOW_CONSUMER, "Nothing was read for too long.", discard=True)
            self._abort(connection)
        elif (
            connection.waiting_for_login is not None
            and not connection.busy
            and now - connection.waiting_for_login > self._login_seconds(connection)
        ):
            connection.close(CloseCode.LOGIN_TIMEOUT, "Nobody logged in.")
        elif connection.is_busy() or not connection.protocol.options.heartbeat:
            # Its own request keeps it from being heard.
            connection.heard = now
        elif now - connection.heard > settings.ping_interval + settings.pong_timeout:
            connection.close(CloseCode.HEARTBEAT_TIMEOUT, "Nothing was heard for too long.")
        elif not connection.pinged and now - connection.heard > settings.ping_interval:
            connection.pinged = True
            connection.send(Ping())

    def _login_seconds(self, connection: Connection) -> float:
        settings = self._settings
        return settings.login_timeout if connection.application else settings.goroomserver_login_timeout


async def _carried_out(action: Callable[[], Awaitable[object]]) -> None:
    try:
        await action()
    except RoomsError as error:
        logger.warning("Put off: %s", error.message)
    except Exception:
        logger.exception("Something that is done regularly failed; it is tried again in time.")
