"""The paths that ``check.py`` measures, with clients without sockets."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from benchmarks.bytecodes import counted_threads
from rooms.concurrency import batching
from rooms.models import Application, Room
from rooms.node.node import Node
from rooms.node.standalone import StandalonePublisher
from rooms.protocol import frame_protocol
from rooms.server.websocket import WebSocket
from roomsite.asgi import application

MANY = 1000
SOME = 250
FEW = 10
REPEATS = 10
# In work for each member even the few bytecodes of a lock are too many.
PER_MEMBER = 1.03

REQUEST = b"\r\n".join(
    [
        b"GET /ws/rooms/check/ HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Protocol: rooms.v1",
        b"\r\n",
    ]
)


@dataclass(frozen=True, slots=True)
class Path:
    """``run`` executes the ``operations`` and restores the state before them.

    It is ``timed`` if its memory fits into the processor's cache, which other load shares. ``most`` is
    the maximum ratio of its bytecodes to the committed ones.
    """

    name: str
    operations: int
    run: Callable[[], Awaitable[None]]
    timed: bool = True
    most: float = 1.15


class Transport(asyncio.Transport):
    """Discards what is written and counts the writes."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._loop = asyncio.get_running_loop()
        self._writes = 0
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None

    def write(self, data: Any) -> None:
        self._writes += 1
        if self._waiter is not None and self._writes >= self._wanted:
            self._waiter.set_result(None)
            self._waiter = None

    async def written(self, times: int = 1) -> None:
        """Wait for this number of writes since ``forget``."""
        if self._writes < times:
            self._wanted, self._waiter = times, self._loop.create_future()
            await self._waiter

    def forget(self) -> None:
        """Reset the count of writes."""
        self._writes = 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Client:
    """Passes what a client sends directly to the server's WebSocket class."""

    def __init__(self, config: Config, state: ServerState) -> None:
        self.transport = Transport()
        self._socket = WebSocket(config, state, {})
        self._socket.connection_made(self.transport)
        self.send(REQUEST)

    def send(self, data: bytes) -> None:
        self._socket.data_received(data)

    async def ask(self, data: bytes) -> None:
        """Send data and wait for an answer."""
        self.transport.forget()
        self.send(data)
        await self.transport.written()

    def end(self) -> None:
        self._socket.connection_lost(None)


def request_frame(**request: Any) -> bytes:
    """Return a request in a frame, masked with zeros."""
    payload = json.dumps({"id": 1, **request}).encode()
    head = bytearray(frame_protocol.frame(frame_protocol.TEXT, payload)[: -len(payload)])
    head[1] |= 0x80
    return bytes(head) + bytes(4) + payload


async def turns(count: int) -> None:
    """Let tasks run for this number of turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def opened() -> AsyncIterator[list[Path]]:
    """Provide all paths and their connected clients."""
    await Application.objects.acreate(
        name="check",
        rooms_on_demand=True,
        history="none",
        request_rate=0,
        logins_per_minute=0,
        max_connections_per_address=0,
    )
    # One client sends at a time, so a pause to collect requests of others would only add time.
    batching.LOOKUP_PAUSE = 0
    config = Config(application, log_config=None, lifespan="off", ws_ping_interval=None)
    config.load()
    connect = partial(Client, config, ServerState())
    many, some, few = [
        [await _log_in_and_join(connect(), f"{number} of {size}", room) for number in range(size)]
        for room, size in (("large", MANY), ("middle", SOME), ("small", FEW))
    ]
    alone = await _log_in_and_join(connect(), "alone")
    node = await Node.get_or_start()
    await node.presence_diffs.flush()
    publisher = await _start_publisher()
    await turns(20)
    gc.collect()
    gc.freeze()
    try:
        yield [
            Path(
                "one message to 1,000 members",
                MANY,
                partial(_send_to_all, many, "large", 1),
                timed=False,
                most=PER_MEMBER,
            ),
            Path(
                "eight messages to 1,000 members",
                8 * MANY,
                partial(_send_to_all, many, "large", 8),
                timed=False,
                most=PER_MEMBER,
            ),
            Path(
                "one message to 250 members", SOME, partial(_send_to_all, some, "middle", 1), most=PER_MEMBER
            ),
            Path(
                "eight messages to 250 members",
                8 * SOME,
                partial(_send_to_all, some, "middle", 8),
                most=PER_MEMBER,
            ),
            Path("one message to 10 members", FEW, partial(_send_to_all, few, "small", 1)),
            Path("one message to one of 250 members", 1, partial(_send_to_one, some, "middle")),
            Path("a request and its answer", REPEATS, partial(_request, alone)),
            Path("a join and a leave", REPEATS, partial(_join_and_leave, alone)),
            Path("a connection and its end", REPEATS, partial(_connect, connect)),
            # Its work is done by other threads, whose CPU time is not that of this one.
            Path("a publish without a node", REPEATS, partial(_publish, publisher), timed=False),
        ]
    finally:
        publisher.close()
        for client in [*many, *some, *few, alone]:
            client.end()
        await node.stop()


async def _log_in_and_join(client: Client, name: str, room: str = "") -> Client:
    await client.transport.written(2)
    await client.ask(request_frame(type="login", name=name))
    if room:
        await client.ask(request_frame(type="join", room=room))
    return client


async def _start_publisher() -> StandalonePublisher:
    """Return the publisher of a process without sockets, which stores in the database."""
    application = await Application.objects.acreate(name="stored")
    await Room.objects.acreate(application=application, name="room")
    with counted_threads():
        publisher = StandalonePublisher()
        await _publish(publisher)
    return publisher


async def _publish(publisher: StandalonePublisher) -> None:
    options: Any = {"event": "message", "to": None, "state": False, "volatile": False}
    for _ in range(REPEATS):
        await publisher.acall(publisher.publish("stored", "room", "x" * 100, **options))


async def _send_to_all(members: list[Client], room: str, messages: int) -> None:
    last = members[-1].transport
    last.forget()
    members[0].send(request_frame(type="message", room=room, data="x" * 100) * messages)
    await last.written()
    await turns(4)


async def _send_to_one(members: list[Client], room: str) -> None:
    last = members[-1].transport
    last.forget()
    recipient = f"{len(members) - 1} of {len(members)}"
    members[0].send(request_frame(type="message", room=room, data="x" * 100, to=recipient))
    await last.written()
    await turns(4)


async def _request(client: Client) -> None:
    ping = request_frame(type="ping")
    for _ in range(REPEATS):
        await client.ask(ping)


async def _join_and_leave(client: Client) -> None:
    join, leave = request_frame(type="join", room="small"), request_frame(type="leave", room="small")
    for _ in range(REPEATS):
        await client.ask(join)
        await client.ask(leave)


async def _connect(connect: Callable[[], Client]) -> None:
    for _ in range(REPEATS):
        client = connect()
        await client.transport.written(2)
        client.end()
        await turns(4)
