"""A client of any protocol without a socket: its frames go straight to the node."""

from __future__ import annotations

import asyncio
import struct
import uuid
from typing import Any, Self

from rooms.consumers import commands_of
from rooms.node.node import Node
from rooms.node.session import make_connection
from rooms.protocol.base import Protocol
from rooms.protocol.events import Error


class Peer:
    def __init__(self, node: Node, protocol: Protocol, application: str = "chat") -> None:
        self.node = node
        self.connection = make_connection(
            node, str(uuid.uuid4()), protocol, application=application, address=""
        )
        self.wanted = asyncio.Event()
        self.connection.on_wake(self.wanted.set)
        self._operations = commands_of(node)

    @classmethod
    async def connected(cls, node: Node, protocol: Protocol) -> Self:
        peer = cls(node, protocol)
        await peer.connect()
        return peer

    async def connect(self) -> None:
        await self.node.connect(self.connection, None, lambda: None)
        for request in self.connection.protocol.on_connected(self.connection.id):
            await self._operations[type(request)](self.connection, request)
        self.received()

    async def send(self, frame: bytes | str) -> None:
        """Execute the commands of a frame."""
        for request in self.connection.protocol.decode(frame):
            assert not isinstance(request, Error), request
            await self._operations[type(request)](self.connection, request)

    def received(self) -> list[bytes]:
        """Return the frames since the last call."""
        return self.connection.pop_all()

    def disconnect(self) -> None:
        """End the socket."""
        self.node.disconnect(self.connection)


def roomer(room: str, event: str, to: str = "", payload: bytes = b"") -> bytes:
    """Return a frame of a roomer client."""
    fields = (room.encode(), event.encode(), to.encode(), b"", payload)
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def fields(frame: bytes) -> list[Any]:
    """Return room, event, receiver, sender and payload of a frame to a roomer client."""
    found = []
    while frame:
        (length,) = struct.unpack_from(">I", frame)
        found.append(frame[4 : 4 + length])
        frame = frame[4 + length :]
    return [*(field.decode() for field in found[:4]), found[4]]
