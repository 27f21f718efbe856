"""One check per second of everything in the process that waits for time to pass.

Heartbeats, timeouts, grace periods, leases: no connection has a timer or a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection

from rooms.hub.connection import Connection
from rooms.node.context import NodeContext
from rooms.protocol.commands import Ping
from rooms.protocol.errors import CloseCode, RoomsError

logger = logging.getLogger("rooms.node")

TICK_SECONDS = 1.0
# A client has this long to receive ``closing``; then its task is ended.
CLOSE_SECONDS = 5.0


class PeriodicTasks:
    """``abort`` ends a connection that cannot be closed."""

    def __init__(
        self,
        context: NodeContext,
        connections: Collection[Connection],
        abort: Callable[[Connection], None],
    ) -> None:
        self._context = context
        self._connections = connections
        self._abort = abort
        self._actions: list[tuple[float, Callable[[], Awaitable[object]]]] = []
        self._next: list[float] = []

    def every(self, seconds: float, action: Callable[[], Awaitable[object]]) -> None:
        """Repeat an action every ``seconds``.

        Each time is a little earlier or later, so that processes spread.
        """
        self._actions.append((seconds, action))
        self._next.append(time.monotonic() + seconds * random.uniform(0.6, 1.4))

    async def run(self) -> None:
        """Run until cancelled."""
        delayed, tasks = self._context.delayed, self._context.tasks
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for connection in list(self._connections):
                self._check(connection, now)
            for action in delayed.pop_due():
                tasks.spawn(delayed.run_in_slot(action))
            for index, (seconds, regular) in enumerate(self._actions):
                if self._next[index] <= now:
                    self._next[index] = now + seconds * random.uniform(0.6, 1.4)
                    tasks.spawn(_run_logged(regular))

    def _check(self, connection: Connection, now: float) -> None:
        settings = self._context.settings
        writing = connection.writing_since
        if connection.close_code is not None:
            if writing is not None and now - writing > CLOSE_SECONDS:
                self._abort(connection)
        elif writing is not None and now - writing > settings.write_timeout:
            connection.close(CloseCode.SLOW_CONSUMER, "The client did not read in time.", discard=True)
            self._abort(connection)
        elif (
            connection.waiting_for_login is not None
            and not connection.busy
            and now - connection.waiting_for_login > self._login_timeout(connection)
        ):
            connection.close(CloseCode.LOGIN_TIMEOUT, "The client did not log in in time.")
        elif connection.is_busy() or not connection.protocol.options.heartbeat:
            # Its own command delays what it sends.
            connection.last_seen = now
        elif now - connection.last_seen > settings.ping_interval + settings.pong_timeout:
            connection.close(CloseCode.HEARTBEAT_TIMEOUT, "The client did not answer the ping in time.")
        elif not connection.ping_sent and now - connection.last_seen > settings.ping_interval:
            connection.ping_sent = True
            connection.send(Ping())

    def _login_timeout(self, connection: Connection) -> float:
        settings = self._context.settings
        return settings.login_timeout if connection.application else settings.goroomserver_login_timeout


async def _run_logged(action: Callable[[], Awaitable[object]]) -> None:
    try:
        await action()
    except RoomsError as error:
        logger.warning("A periodic task was postponed: %s", error.message)
    except Exception:
        logger.exception("A periodic task failed; it runs again in time.")
