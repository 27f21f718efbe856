"""A client without a socket: its commands go straight to the node, its frames come from its send queue."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, Self

import msgspec
import pytest

from rooms.consumers import commands_of
from rooms.extensions import Extension
from rooms.hub.connection import Connection
from rooms.hub.send_queue import SendQueueLimits
from rooms.node.node import Node
from rooms.protocol import errors
from rooms.protocol.commands import Command, Join, ListMembers, Login, Send
from rooms.protocol.errors import RoomsError
from rooms.protocol.native import Native

# The types of the fixtures `install_extension` and `make_node`.
Install = Callable[[type[Extension]], str]
MakeNode = Callable[..., Awaitable[Node]]

# Only a test that waits for what never comes takes this many seconds.
PATIENCE = 60


_ERRORS: dict[str, type[RoomsError]] = {
    each.code: each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, RoomsError)
}


class Client:
    """One connection of a node. ``frames`` are all frames that it received so far, in order."""

    def __init__(self, node: Node, *, application: str = "chat", address: str = "", **limits: int) -> None:
        self.node = node
        self.frames: list[dict[str, Any]] = []
        self._woken = asyncio.Event()
        self._ids = itertools.count(1)
        self._operations = commands_of(node)
        self.connection = Connection(
            uuid.uuid4().hex,
            Native(),
            application=application,
            address=address,
            limits=SendQueueLimits(**limits),
            wake=self._woken.set,
        )

    @classmethod
    async def named(cls, node: Node, name: str, *rooms: str, **options: Any) -> Self:
        """Return a client that is logged in as a guest, and in these rooms."""
        client = cls(node, **options)
        await client.connect()
        await client.request(Login(name=name))
        for room in rooms:
            await client.request(Join(room=room))
        return client

    async def connect(self, user: Any = None) -> None:
        await self.node.connect(self.connection, user, lambda: None)

    def disconnect(self) -> None:
        """End the socket."""
        self.node.disconnect(self.connection)

    async def request(self, command: Command) -> Any:
        """Execute a command and return the data of its reply. Raises what the operation raises."""
        id = next(self._ids)
        await self._operations[type(command)](self.connection, msgspec.structs.replace(command, id=id))
        await self.connection.wait_idle()
        self.read()
        reply = next((frame for frame in self.frames if frame.get("id") == id), {})
        if reply.get("type") == "error":
            raise _ERRORS[reply["code"]](reply["message"])
        return reply.get("data")

    async def send(self, room: str, data: Any, **options: Any) -> Any:
        return await self.request(Send(room=room, data=msgspec.Raw(json.dumps(data).encode()), **options))

    def read(self) -> list[dict[str, Any]]:
        """Return the frames since the last call."""
        self._woken.clear()
        lines = [line for frame in self.connection.pop_all() for line in frame.split(b"\n")]
        new = [json.loads(line) for line in lines]
        self.frames += new
        return new

    def received(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the received frames of these types."""
        self.read()
        return [frame for frame in self.frames if frame["type"] in kinds]

    def messages(self) -> list[Any]:
        """Return the data of all received messages."""
        return [frame["data"] for frame in self.received("message")]

    async def until(self, done: Callable[[], Any]) -> None:
        """Wait, frame by frame, until a condition holds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self.read()
                if done():
                    return
                await self._woken.wait()

    @property
    def closed(self) -> int | None:
        """The close code of the server; None while it is open."""
        return self.connection.close_code


async def error_of(error: type[RoomsError], asking: Awaitable[Any]) -> RoomsError:
    """Wait for something that fails, and return its error."""
    with pytest.raises(error) as raised:
        await asking
    return raised.value


async def wait_for(event: asyncio.Event) -> None:
    """Wait until an event is set. Fails after the timeout."""
    async with asyncio.timeout(PATIENCE):
        await event.wait()


async def member_names(client: Client, room: str) -> list[str]:
    """Return the names of the members of a room, as this client receives them."""
    return [user["name"] for user in (await client.request(ListMembers(room=room)))["members"]]


def active_groups(node: Node) -> list[str]:
    """The keys of all groups with members in this process."""
    registry = node.context.registry
    groups = [
        each
        for application in registry.applications()
        for each in (application.members, application.room_list)
    ]
    return [group.key for group in (*groups, *registry.rooms()) if group.members]


async def run_due_actions(node: Node, clock: SimpleNamespace) -> None:
    """Run the actions that are due within an hour, as the periodic check does."""
    await node.context.tasks.drain()
    clock.now += 3600
    for action in node.context.delayed.pop_due():
        node.context.tasks.spawn(node.context.delayed.run_in_slot(action))
    await node.context.tasks.drain()
