"""A small client of the native protocol for the black-box tests, written from the document alone.

It shares no code with the server: it knows JSON lines, request ids and close codes, nothing else. `Visitors`
opens connections to one server and closes them all at the end; a `Client` is one connection. Nothing here
sleeps: a test that wants to see that something does *not* arrive asks for something that must come later
(`ping`, or a marker message) and looks at what came before it.
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

#: Seconds after which something that must come is given up. No assertion is about time.
PATIENCE = 30.0


def unique(prefix: str) -> str:
    """A name that no other test uses: the server is shared by all of them."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


class HandshakeRejected(Exception):
    """The server answered a request with an error."""

    def __init__(self, answer: Message) -> None:
        super().__init__(f"{answer['code']}: {answer['message']}")
        self.code: str = answer["code"]
        self.retry: bool = answer["retry"]


class Client:
    """One connection: requests with ids, and what arrives in the order in which it arrives."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.log: list[Message] = []
        """Everything that has come, in order."""
        self.pushes: deque[Message] = deque()
        """What came while an answer was awaited, and has not been looked at."""
        self.user: Message = {}
        self.token = ""
        self._arrived: deque[Message] = deque()
        self._numbers = count(1)

    async def receive(self) -> Message:
        """The next message on the wire, whatever it is."""
        while not self._arrived:
            frame = await asyncio.wait_for(self.socket.recv(), PATIENCE)
            assert isinstance(frame, str), "the server sends text frames only"
            self._arrived.extend(json.loads(line) for line in frame.split("\n") if line)
        message = self._arrived.popleft()
        self.log.append(message)
        return message

    async def hear(self) -> Message:
        """The next message that is not a heartbeat; heartbeats are answered, but do not prolong the wait."""
        async with asyncio.timeout(PATIENCE):
            while (message := await self.receive())["type"] == "ping":
                await self.send("pong")
        return message

    async def push(self, kind: str | None = None) -> Message:
        """The next push; with `kind` the next of that type, passing over others."""
        while True:
            message = self.pushes.popleft() if self.pushes else await self.hear()
            if kind in (None, message["type"]):
                return message

    async def messages(self, number: int) -> list[Message]:
        """The next so many messages of rooms, passing over other pushes."""
        return [await self.push("message") for _ in range(number)]

    async def send(self, kind: str, /, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def send_text(self, text: str | bytes) -> None:
        """A text frame with exactly these bytes, lawful or not."""
        await self.socket.send(text, text=True)

    async def answer(self, identifier: object) -> Message:
        """The answer with this id; pushes that come before it are kept."""
        while True:
            message = await self.hear()
            if message["type"] in ("reply", "error", "pong") and message.get("id") == identifier:
                return message
            self.pushes.append(message)

    async def ask(self, kind: str, /, **fields: Any) -> Message:
        """Send a request and return the whole answer, a reply or an error."""
        number = next(self._numbers)
        await self.send(kind, id=number, **fields)
        return await self.answer(number)

    async def request(self, kind: str, /, **fields: Any) -> Message:
        """Send a request and return the data of its reply; `Refused` when the answer is an error."""
        answer = await self.ask(kind, **fields)
        if answer["type"] == "error":
            raise HandshakeRejected(answer)
        assert answer["type"] == "reply"
        data: Message = answer["data"]
        return data

    async def refused(self, kind: str, /, **fields: Any) -> str:
        """Send a request that must be answered with an error, and return its code."""
        answer = await self.ask(kind, **fields)
        assert answer["type"] == "error", f"{kind} {fields} was granted: {answer}"
        assert isinstance(answer["message"], str)
        assert isinstance(answer["retry"], bool)
        code: str = answer["code"]
        return code

    async def before_pong(self) -> list[Message]:
        """Ping, and return every push that came before the pong and has not been looked at."""
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

    async def say(self, room: str, data: Any = None, **fields: Any) -> Message:
        return await self.request("message", room=room, data=data, **fields)

    async def closed(self) -> int:
        """Read until the server closes, see that `closing` was its last word, and return the code."""
        try:
            while True:
                self.pushes.append(await self.receive())
        except ConnectionClosed:
            code = self.socket.close_code or 0
        assert self.log, f"closed with {code} without a word"
        assert self.log[-1]["type"] == "closing", f"closed with {code}, the last word was {self.log[-1]}"
        assert self.log[-1]["code"] == code
        assert isinstance(self.log[-1]["message"], str)
        return code

    def drop(self) -> None:
        """Lose the connection: no close frame, no farewell."""
        self.socket.transport.abort()


class Visitors:
    """Opens connections to one server, and closes them all when the block ends."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def open(self, application: str = "durable", **options: Any) -> Client:
        """A connection on which nothing has been read yet."""
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
        """A connection that has been greeted."""
        client = await self.open(application, **options)
        greeting = await client.receive()
        assert greeting["type"] == "connected"
        client.user = greeting["user"] or {}
        return client

    async def guest(self, name: str | None = None, application: str = "durable") -> Client:
        """A connection that is logged in as a guest."""
        client = await self.connect(application)
        await client.login(name=name or unique("guest"))
        return client

    async def again(self, client: Client, application: str = "durable") -> Client:
        """One more connection of the same user."""
        other = await self.connect(application)
        await other.login(token=client.token)
        return other

    async def members(self, room: str, number: int, application: str = "durable") -> list[Client]:
        """So many guests who have joined one after the other, and have looked at who came after them."""
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
    """Visitors of the shared server. A test module takes it in with `visitors = native.visitors`."""
    async with Visitors(server) as everyone:
        yield everyone


def session_cookie(server: Server, username: str) -> str:
    """The value of a Cookie header with a real session of that user, made as signing in makes it."""
    script = (
        "from django.contrib.auth import get_user_model\n"
        "from django.test import Client\n"
        "browser = Client()\n"
        f"browser.force_login(get_user_model().objects.get(username={username!r}))\n"
        "print('sessionid=' + browser.cookies['sessionid'].value)"
    )
    return server.manage("shell", "-c", script).split()[-1]


def make_application(server: Server, **fields: object) -> str:
    """One more application with these fields of its row, behind the server's back; returns its name."""
    name = unique("application")
    script = f"from rooms.models import Application\nApplication.objects.create(name={name!r}, **{fields!r})"
    server.manage("shell", "-c", script)
    return name
