"""The ways that ``check.py`` measures: clients without sockets, on the example site behind our own server."""

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

from rooms.concurrency import batching
from rooms.models import Application
from rooms.node.node import Node
from rooms.protocol import frame_protocol
from rooms.server.websocket import WebSocket
from roomsite.asgi import application

MANY = 1000
SOME = 250
FEW = 10
REPEATS = 10
# Of what is done for each member, even a lock's few bytecodes are too many.
A_MEMBER = 1.03

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
    """``run`` does so many operations; afterwards everything is as it was before. It is ``timed`` if it does
    not touch more memory than stays near the processor, which is the others' as well. ``most`` times the
    committed bytecodes are lawful."""

    name: str
    operations: int
    run: Callable[[], Awaitable[None]]
    timed: bool = True
    most: float = 1.15


class Transport(asyncio.Transport):
    """Swallows what is written, and wakes who waits for that."""

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
        """Wait until something was written so many times since ``forget``."""
        if self._writes < times:
            self._wanted, self._waiter = times, self._loop.create_future()
            await self._waiter

    def forget(self) -> None:
        """Whatever was written so far is not waited for."""
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
    """What a client sends is what the server's WebSocket class is given."""

    def __init__(self, config: Config, state: ServerState) -> None:
        self.transport = Transport()
        self._socket = WebSocket(config, state, {})
        self._socket.connection_made(self.transport)
        self.send(REQUEST)

    def send(self, data: bytes) -> None:
        self._socket.data_received(data)

    async def ask(self, data: bytes) -> None:
        """Send, and wait until something is answered."""
        self.transport.forget()
        self.send(data)
        await self.transport.written()

    def end(self) -> None:
        self._socket.connection_lost(None)


def said(**request: Any) -> bytes:
    """A request in a frame, masked with nothing."""
    payload = json.dumps({"id": 1, **request}).encode()
    head = bytearray(frame_protocol.frame(frame_protocol.TEXT, payload)[: -len(payload)])
    head[1] |= 0x80
    return bytes(head) + bytes(4) + payload


async def turns(count: int) -> None:
    """What was begun comes to its end."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def opened() -> AsyncIterator[list[Path]]:
    """All paths, with everybody who takes part in them."""
    await Application.objects.acreate(
        name="check",
        rooms_on_demand=True,
        history="none",
        request_rate=0,
        logins_per_minute=0,
        max_connections_per_address=0,
    )
    # Here one asks at a time, and would wait for others in vain.
    batching.LOOKUP_PAUSE = 0
    config = Config(application, log_config=None, lifespan="off", ws_ping_interval=None)
    config.load()
    connect = partial(Client, config, ServerState())
    many, some, few = [
        [await _inside(connect(), f"{number} of {size}", room) for number in range(size)]
        for room, size in (("large", MANY), ("middle", SOME), ("small", FEW))
    ]
    alone = await _inside(connect(), "alone")
    node = await Node.serving()
    await node.crowds.tell()
    await turns(20)
    gc.collect()
    gc.freeze()
    try:
        yield [
            Path(
                "one message to 1,000 members",
                MANY,
                partial(_told, many, "large", 1),
                timed=False,
                most=A_MEMBER,
            ),
            Path(
                "eight messages to 1,000 members",
                8 * MANY,
                partial(_told, many, "large", 8),
                timed=False,
                most=A_MEMBER,
            ),
            Path("one message to 250 members", SOME, partial(_told, some, "middle", 1), most=A_MEMBER),
            Path("eight messages to 250 members", 8 * SOME, partial(_told, some, "middle", 8), most=A_MEMBER),
            Path("one message to 10 members", FEW, partial(_told, few, "small", 1)),
            Path("one message to one of 250 members", 1, partial(_told_alone, some, "middle")),
            Path("a request and its answer", REPEATS, partial(_asked, alone)),
            Path("a join and a leave", REPEATS, partial(_in_and_out, alone)),
            Path("a connection and its end", REPEATS, partial(_connected, connect)),
        ]
    finally:
        for client in [*many, *some, *few, alone]:
            client.end()
        await node.stop()


async def _inside(client: Client, name: str, room: str = "") -> Client:
    await client.transport.written(2)
    await client.ask(said(type="login", name=name))
    if room:
        await client.ask(said(type="join", room=room))
    return client


async def _told(crowd: list[Client], room: str, messages: int) -> None:
    last = crowd[-1].transport
    last.forget()
    crowd[0].send(said(type="message", room=room, data="x" * 100) * messages)
    await last.written()
    await turns(4)


async def _told_alone(crowd: list[Client], room: str) -> None:
    last = crowd[-1].transport
    last.forget()
    whom = f"{len(crowd) - 1} of {len(crowd)}"
    crowd[0].send(said(type="message", room=room, data="x" * 100, to=whom))
    await last.written()
    await turns(4)


async def _asked(client: Client) -> None:
    ping = said(type="ping")
    for _ in range(REPEATS):
        await client.ask(ping)


async def _in_and_out(client: Client) -> None:
    join, leave = said(type="join", room="small"), said(type="leave", room="small")
    for _ in range(REPEATS):
        await client.ask(join)
        await client.ask(leave)


async def _connected(connect: Callable[[], Client]) -> None:
    for _ in range(REPEATS):
        client = connect()
        await client.transport.written(2)
        client.end()
        await turns(4)
