"""A channel layer on PostgreSQL's LISTEN and NOTIFY, without Redis.

It has no table and no polling: messages are never stored. (channels-postgres 1.1 on PyPI writes a row for
every member of a group, and its listener ends with its connection.) A process has one connection that
sends and, once it reads a channel, one that listens. All processes listen to one notification channel, so a
group costs the server nothing, and joining it no round trip; messages of several tasks share a statement.

A lost connection is replaced; the messages meanwhile are lost. A PgBouncer in between must use session
mode: in transaction mode, no message arrives.
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

# A notification has less than 8000 bytes of text: base64 makes four bytes of three.
PART_BYTES = 7990 // 4 * 3
# The interval between attempts to connect.
RETRY_SECONDS = 1.0
MAX_PENDING = 1000
# The maximum of a statement, unless a single message is longer.
STATEMENT_BYTES = 256 * 1024
MAX_BYTES = 16 * 1024 * 1024
# Options by which a connection notices that the server is gone; the site's own OPTIONS override them.
CONNECTION_OPTIONS: dict[str, Any] = {
    "connect_timeout": 2,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "rooms",
}
# Notifications of one statement arrive in the order in which they were made.
NOTIFY = """
SELECT pg_notify(%s, part) FROM unnest(%s::text[]) WITH ORDINALITY AS parts (part, number) ORDER BY number
"""


@dataclass(slots=True)
class _Sending:
    """An envelope, and the future of the task that sends it."""

    envelope: Envelope
    sent: asyncio.Future[None]

    def complete(self, error: Exception | None = None) -> None:
        if self.sent.done():
            return
        if error is None:
            self.sent.set_result(None)
        else:
            self.sent.set_exception(error)


class PostgresLayer(TransportLayer):
    """Uses the database ``using`` of ``DATABASES``; ``prefix`` separates sites.

    Raises ImproperlyConfigured when the database is not PostgreSQL.
    """

    def __init__(self, *, using: str = "default", prefix: str = "rooms", capacity: int = CAPACITY) -> None:
        super().__init__(capacity=capacity)
        if (vendor := connections[using].vendor) != "postgresql":
            raise ImproperlyConfigured(f"PostgresLayer expected a postgresql database, got {vendor}.")
        self._using = using
        # The name of a notification channel has at most 63 bytes of these characters.
        self.name = "rooms_" + hashlib.blake2b(prefix.encode(), digest_size=16).hexdigest()

    def transport(self, deliver: Callable[[bytes], None]) -> Transport:
        return _Notifications(self, deliver)

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """Connect to the configured database. Raises psycopg.Error."""
        parameters: dict[str, Any] = connections[self._using].get_connection_params()
        # These options are for Django's synchronous connections.
        for name in ("cursor_factory", "context"):
            parameters.pop(name, None)
        return await psycopg.AsyncConnection.connect(**(CONNECTION_OPTIONS | parameters), autocommit=True)


class _Notifications(Transport):
    """Sends and receives notifications.

    Each connection belongs to a task: it ends with its event loop.
    """

    def __init__(self, layer: PostgresLayer, deliver: Callable[[bytes], None]) -> None:
        super().__init__(deliver)
        self._layer = layer
        self._fragmenter = Fragmenter(PART_BYTES)
        self._listening = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._pending: deque[_Sending] = deque()
        self._added = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._connect_error: Exception | None = None
        self._retry_at = 0.0

    async def listen(self) -> None:
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._listen())
        await self._listening.wait()

    async def send(self, envelope: Envelope) -> None:
        if len(envelope.message) > MAX_BYTES:
            raise ValueError(f"Expected a message of at most {MAX_BYTES} bytes, got {len(envelope.message)}.")
        if len(self._pending) >= MAX_PENDING:
            raise ChannelFull
        if self._connect_error is not None and time.monotonic() < self._retry_at:
            raise ConnectionError("PostgreSQL did not accept the last connection.") from self._connect_error
        sending = _Sending(envelope, asyncio.get_running_loop().create_future())
        self._pending.append(sending)
        self._added.set()
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())
        await sending.sent

    async def close(self) -> None:
        tasks = [task for task in (self._listener, self._sender) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        """Receive the messages of other processes, for ever."""
        lost = False
        while True:
            try:
                async with await self._layer.connect() as connection:
                    reassembler = Reassembler(self._fragmenter.sender)
                    await connection.execute(f"LISTEN {self._layer.name}")
                    self._listening.set()
                    if lost:
                        logger.warning("Receiving messages over PostgreSQL again.")
                    lost = False
                    async for notification in connection.notifies():
                        self._receive(reassembler, notification.payload)
            except Exception as error:
                if not lost:
                    logger.warning("Cannot receive messages over PostgreSQL: %s", error)
                lost = True
            finally:
                self._listening.clear()
            await asyncio.sleep(RETRY_SECONDS)

    def _receive(self, reassembler: Reassembler, payload: str) -> None:
        try:
            if (envelopes := reassembler.add(base64.b64decode(payload))) is not None:
                self.deliver(envelopes)
        except Exception:
            # Every client of the database may notify.
            logger.exception("Ignored an invalid notification.")

    async def _send_all(self) -> None:
        """Send pending envelopes, until the connection is lost."""
        taken: list[_Sending] = []
        reason: Exception = ConnectionError("The connection to PostgreSQL is closed.")
        try:
            async with await self._layer.connect() as connection:
                self._connect_error = None
                while True:
                    await self._added.wait()
                    taken = self._take()
                    envelopes = pack([sending.envelope for sending in taken])
                    parts = [base64.b64encode(part).decode() for part in self._fragmenter.parts(envelopes)]
                    await connection.execute(NOTIFY, [self._layer.name, parts])
                    for sending in taken:
                        sending.complete()
        except Exception as error:
            reason = error
            if not taken:
                self._connect_error, self._retry_at = error, time.monotonic() + RETRY_SECONDS
        finally:
            for sending in [*taken, *self._pending]:
                sending.complete(reason)
            self._pending.clear()

    def _take(self) -> list[_Sending]:
        """Take the envelopes of the next statement."""
        taken: list[_Sending] = []
        left = STATEMENT_BYTES
        while self._pending and (not taken or len(self._pending[0].envelope.message) <= left):
            sending = self._pending.popleft()
            # A task that was cancelled does not send its envelope.
            if not sending.sent.done():
                taken.append(sending)
                left -= len(sending.envelope.message)
        if not self._pending:
            self._added.clear()
        return taken
