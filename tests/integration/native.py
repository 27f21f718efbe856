"""A small client of the native protocol for black-box tests, written from its document.

It shares no code with the server. `Visitors` opens connections to one server and closes them at the end; a
`Client` is one connection. Nothing sleeps: to show that an event does *not* arrive, a test requests something
that arrives later (`ping`, or a marker message) and checks the events before it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from contextlib import AsyncExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.servers import Server

Message = dict[str, Any]

#: Seconds until a test fails because an expected event does not arrive. No assertion is about time.
PATIENCE = 60.0


def unique(prefix: str) -> str:
    """Return a name that no other test uses; all tests share the server."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


class RequestRefused(Exception):
    """Raised when the server answers a request with an error."""

    def __init__(self, answer: Message) -> None:
        super().__init__(f"{answer['code']}: {answer['message']}")
        self.code: str = answer["code"]
        self.retry: bool = answer["retry"]


class Client:
    """One connection: requests with ids, and all messages in the order of arrival."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.log: list[Message] = []
        """All messages so far, in order."""
        self.pushes: deque[Message] = deque()
        """Events that arrived before an awaited answer and were not returned yet."""
        self.user: Message = {}
        self.token = ""
        self._arrived: deque[Message] = deque()
        self._numbers = count(1)

    async def receive(self) -> Message:
        """Return the next message of any type."""
        while not self._arrived:
            frame = await asyncio.wait_for(self.socket.recv(), PATIENCE)
            assert isinstance(frame, str), "the server sends text frames only"
            self._arrived.extend(json.loads(line) for line in frame.split("\n") if line)
        message = self._arrived.popleft()
        self.log.append(message)
        return message

    async def next_message(self) -> Message:
        """Return the next message that is no heartbeat; answer heartbeats."""
        async with asyncio.timeout(PATIENCE):
            while (message := await self.receive())["type"] == "ping":
                await self.send("pong")
        return message

    async def push(self, kind: str | None = None) -> Message:
        """Return the next event, or the next one of this type and skip others."""
        while True:
            message = self.pushes.popleft() if self.pushes else await self.next_message()
            if kind in (None, message["type"]):
                return message

    async def messages(self, number: int) -> list[Message]:
        """Return the next messages of rooms and skip other events."""
        return [await self.push("message") for _ in range(number)]

    async def send(self, kind: str, /, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def send_text(self, text: str | bytes) -> None:
        """Send a text frame with exactly these bytes, valid or not."""
        await self.socket.send(text, text=True)

    async def answer(self, identifier: object) -> Message:
        """Return the answer with this id; keep the events before it."""
        while True:
            message = await self.next_message()
            if message["type"] in ("reply", "error", "pong") and message.get("id") == identifier:
                return message
            self.pushes.append(message)

    async def ask(self, kind: str, /, **fields: Any) -> Message:
        """Send a request and return its answer, a reply or an error."""
        number = next(self._numbers)
        await self.send(kind, id=number, **fields)
        return await self.answer(number)

    async def request(self, kind: str, /, **fields: Any) -> Message:
        """Send a request and return the data of its reply. Raises RequestRefused for an error."""
        answer = await self.ask(kind, **fields)
        if answer["type"] == "error":
            raise RequestRefused(answer)
        assert answer["type"] == "reply"
        data: Message = answer["data"]
        return data

    async def refused(self, kind: str, /, **fields: Any) -> str:
        """Send a request that the server must refuse, and return the error code."""
        answer = await self.ask(kind, **fields)
        assert answer["type"] == "error", f"{kind} {fields} was granted: {answer}"
        assert isinstance(answer["message"], str)
        assert isinstance(answer["retry"], bool)
        code: str = answer["code"]
        return code

    async def before_pong(self) -> list[Message]:
        """Send a ping, and return the events before the pong that were not returned yet."""
        answer = await self.ask("ping")
        assert answer["type"] == "pong"
        seen = list(self.pushes)
        self.pushes.clear()
        return seen

    async def login(self, **fields: Any) -> Message:
        data = await self.request("login", **fields)
        self.user, self.token = data["user"], data["token"]
        return data

    async def join(self, room: str, **fields: Any) -> Message:
        return await self.request("join", room=room, **fields)

    async def send_message(self, room: str, data: Any = None, **fields: Any) -> Message:
        return await self.request("message", room=room, data=data, **fields)

    async def closed(self) -> int:
        """Read until the server closes, check that `closing` was last, and return the code."""
        try:
            while True:
                self.pushes.append(await self.receive())
        except ConnectionClosed:
            code = self.socket.close_code or 0
        assert self.log, f"closed with {code} without a message"
        assert self.log[-1]["type"] == "closing", f"closed with {code}, the last message was {self.log[-1]}"
        assert self.log[-1]["code"] == code
        assert isinstance(self.log[-1]["message"], str)
        return code

    def drop(self) -> None:
        """Abort the connection without a close frame."""
        self.socket.transport.abort()


class Visitors:
    """Opens connections to one server, and closes them at the end of the block."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def open(self, application: str = "durable", **options: Any) -> Client:
        """Open a connection and read nothing."""
        address = f"{self.server.ws}/ws/rooms/{application}/"
        defaults = {
            "compression": None,
            "ping_interval": None,
            "proxy": None,
            "max_size": None,
            "close_timeout": 1,
        }
        socket = await self._stack.enter_async_context(connect(address, **{**defaults, **options}))
        return Client(socket)

    async def connect(self, application: str = "durable", **options: Any) -> Client:
        """Open a connection and read `connected`."""
        client = await self.open(application, **options)
        greeting = await client.receive()
        assert greeting["type"] == "connected"
        client.user = greeting["user"] or {}
        return client

    async def guest(self, name: str | None = None, application: str = "durable") -> Client:
        """Open a connection and log in as a guest."""
        client = await self.connect(application)
        await client.login(name=name or unique("guest"))
        return client

    async def again(self, client: Client, application: str = "durable") -> Client:
        """Open another connection of the same user."""
        other = await self.connect(application)
        await other.login(token=client.token)
        return other

    async def members(self, room: str, number: int, application: str = "durable") -> list[Client]:
        """Join guests one after the other; each has read the joins after its own."""
        clients = []
        for _ in range(number):
            client = await self.guest(application=application)
            await client.join(room)
            for earlier in clients:
                assert (await earlier.push())["type"] == "joined"
            clients.append(client)
        return clients


@pytest.fixture
async def visitors(server: Server) -> AsyncIterator[Visitors]:
    """Visitors of the shared server, for modules with `visitors = native.visitors`."""
    async with Visitors(server) as visitors:
        yield visitors


def session_cookie(server: Server, username: str) -> str:
    """Return a Cookie header with a session of this user, as a login creates it."""
    script = (
        "from django.contrib.auth import get_user_model\n"
        "from django.test import Client\n"
        "browser = Client()\n"
        f"browser.force_login(get_user_model().objects.get(username={username!r}))\n"
        "print('sessionid=' + browser.cookies['sessionid'].value)"
    )
    return server.manage("shell", "-c", script).split()[-1]


def make_application(server: Server, **fields: object) -> str:
    """Create an application with these fields in another process; return its name."""
    name = unique("application")
    script = f"from rooms.models import Application\nApplication.objects.create(name={name!r}, **{fields!r})"
    server.manage("shell", "-c", script)
    return name
