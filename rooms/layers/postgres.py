"""A channel layer on PostgreSQL's LISTEN and NOTIFY, for sites of several processes that have no Redis.

No table, no polling: what processes say to each other is never stored. (channels-postgres 1.1, the one on
the package index, writes a row for every member of a group, and its listener ends with its connection.)
A process has one connection that sends and, once it reads a channel, one that listens. All processes
hear one notification channel, so a group costs the server nothing and joining one no round trip; what
several tasks send in one turn travels in one statement.

A lost connection is made anew; what was said meanwhile is lost. A PgBouncer in between must be in session
mode: in transaction mode nothing is ever heard.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from channels.exceptions import ChannelFull
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from rooms.layers.base import CAPACITY, Envelope, Transport, TransportLayer, pack
from rooms.layers.fragmentation import Fragmenter, Reassembler

logger = logging.getLogger("rooms.layers")

# A notification holds less than 8000 bytes, and of text: base64 makes four bytes of three.
PART_BYTES = 7990 // 4 * 3
# A connection that cannot be had is tried again after so long.
RETRY_SECONDS = 1.0
MOST_WAITING = 1000
# So much travels in one statement, or one message if that alone is longer.
STATEMENT_BYTES = 256 * 1024
MOST_BYTES = 16 * 1024 * 1024
# How a connection notices that the other end is gone without a word; the site's own OPTIONS come first.
PATIENCE: dict[str, Any] = {
    "connect_timeout": 2,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "rooms",
}
# Notifications of one statement arrive in the order in which they were made.
NOTIFY = """
SELECT pg_notify(%s, part) FROM unnest(%s::text[]) WITH ORDINALITY AS parts (part, place) ORDER BY place
"""


@dataclass(slots=True)
class _Sending:
    """A letter, and whoever waits until it is sent."""

    letter: Envelope
    sent: asyncio.Future[None]

    def answer(self, error: Exception | None = None) -> None:
        if self.sent.done():
            return
        if error is None:
            self.sent.set_result(None)
        else:
            self.sent.set_exception(error)


class PostgresLayer(TransportLayer):
    """``using``: which of ``DATABASES``; ``prefix``: layers of different prefixes do not hear each other.

    Raises ImproperlyConfigured when that database is no PostgreSQL.
    """

    def __init__(self, *, using: str = "default", prefix: str = "rooms", capacity: int = CAPACITY) -> None:
        super().__init__(capacity=capacity)
        if (vendor := connections[using].vendor) != "postgresql":
            raise ImproperlyConfigured(f"PostgresLayer is on a database of {vendor}. Lawful: postgresql.")
        self._using = using
        # Names of notification channels have 63 bytes at most, and no other characters than these.
        self.name = "rooms_" + hashlib.blake2b(prefix.encode(), digest_size=16).hexdigest()

    def carrier(self, deliver: Callable[[bytes], None]) -> Transport:
        return _Notifications(self, deliver)

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """A connection to the database that Django is configured for. Raises psycopg.Error."""
        parameters: dict[str, Any] = connections[self._using].get_connection_params()
        # These belong to Django's own, synchronous connections.
        for name in ("cursor_factory", "context"):
            parameters.pop(name, None)
        return await psycopg.AsyncConnection.connect(**(PATIENCE | parameters), autocommit=True)


class _Notifications(Transport):
    """Each connection is held by a task: it ends with its event loop."""

    def __init__(self, layer: PostgresLayer, deliver: Callable[[bytes], None]) -> None:
        super().__init__(deliver)
        self._layer = layer
        self._parting = Fragmenter(PART_BYTES)
        self._listening = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._waiting: deque[_Sending] = deque()
        self._news = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._refused: Exception | None = None
        self._again = 0.0

    async def listen(self) -> None:
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._listen())
        await self._listening.wait()

    async def carry(self, letter: Envelope) -> None:
        if len(letter.message) > MOST_BYTES:
            raise ValueError(f"A message has {len(letter.message)} bytes. Lawful: {MOST_BYTES} at most.")
        if len(self._waiting) >= MOST_WAITING:
            raise ChannelFull
        if self._refused is not None and time.monotonic() < self._again:
            raise ConnectionError("PostgreSQL was not there a moment ago.") from self._refused
        sending = _Sending(letter, asyncio.get_running_loop().create_future())
        self._waiting.append(sending)
        self._news.set()
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        await sending.sent

    async def close(self) -> None:
        tasks = [task for task in (self._listener, self._sender) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        """Hear what others send, for ever."""
        lost = False
        while True:
            try:
                async with await self._layer.connect() as connection:
                    joining = Reassembler(self._parting.sender)
                    await connection.execute(f"LISTEN {self._layer.name}")
                    self._listening.set()
                    if lost:
                        logger.warning("Other processes are heard over PostgreSQL again.")
                    lost = False
                    async for notification in connection.notifies():
                        self._heard(joining, notification.payload)
            except Exception as error:
                if not lost:
                    logger.warning("Nothing is heard from other processes over PostgreSQL: %s", error)
                lost = True
            finally:
                self._listening.clear()
            await asyncio.sleep(RETRY_SECONDS)

    def _heard(self, joining: Reassembler, payload: str) -> None:
        try:
            if (letters := joining.add(base64.b64decode(payload))) is not None:
                self.deliver(letters)
        except Exception:
            # Whoever may connect to the database may notify.
            logger.exception("A notification could not be used.")

    async def _send(self) -> None:
        """Send what waits, until the connection is lost."""
        taken: list[_Sending] = []
        reason: Exception = ConnectionError("The connection to PostgreSQL is closed.")
        try:
            async with await self._layer.connect() as connection:
                self._refused = None
                while True:
                    await self._news.wait()
                    taken = self._take()
                    letters = pack([sending.letter for sending in taken])
                    parts = [base64.b64encode(part).decode() for part in self._parting.parts(letters)]
                    await connection.execute(NOTIFY, [self._layer.name, parts])
                    for sending in taken:
                        sending.answer()
        except Exception as error:
            reason = error
            if not taken:
                self._refused, self._again = error, time.monotonic() + RETRY_SECONDS
        finally:
            for sending in [*taken, *self._waiting]:
                sending.answer(reason)
            self._waiting.clear()

    def _take(self) -> list[_Sending]:
        """What is sent next."""
        taken: list[_Sending] = []
        room = STATEMENT_BYTES
        while self._waiting and (not taken or len(self._waiting[0].letter.message) <= room):
            sending = self._waiting.popleft()
            # Who has stopped waiting for it has given it up.
            if not sending.sent.done():
                taken.append(sending)
                room -= len(sending.letter.message)
        if not self._waiting:
            self._news.clear()
        return taken
