"""Small clients of the five protocols, written from the documents alone.

They share no code with the server. Nothing here sleeps: a test that something does *not* arrive sends a
command whose answer must come later (`drain()`) and looks at what came before it. `sites.py` opens the
clients.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, ClassVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

#: The timeout in seconds for an expected frame.
PATIENCE = 60.0


class Client(ABC):
    """One connection of one protocol."""

    path: ClassVar[str]

    def __init__(self, socket: ClientConnection, application: str) -> None:
        self.socket = socket
        self.application = application
        self.name = ""
        self._waiting: deque[Any] = deque()

    @abstractmethod
    async def log_in(self) -> None:
        """Exchange the first frames of a connection; afterwards the client has a name."""

    @abstractmethod
    async def join(self, room: str) -> Any:
        """Join a room and return the answer."""

    @abstractmethod
    def is_joined(self, answer: Any) -> bool:
        """Return whether an answer to ``join`` is a success."""

    @abstractmethod
    async def send_message(self, room: str, content: Any, event: str = "message") -> None:
        """Send a message to a room, without waiting for an answer."""

    @abstractmethod
    async def drain(self) -> list[Any]:
        """Send a harmless command and return what was received before its answer."""

    def parse(self, frame: str | bytes) -> list[Any]:
        """Return the messages in a frame."""
        return [frame]

    def is_message(self, frame: Any) -> bool:
        """Return whether a frame is a message in a room."""
        return True

    async def receive(self) -> Any:
        """Return the next frame of any kind. Raises ConnectionClosed."""
        while not self._waiting:
            self._waiting.extend(self.parse(await asyncio.wait_for(self.socket.recv(), PATIENCE)))
        return self._waiting.popleft()

    async def receive_message(self) -> Any:
        """Return the next message in a room, and skip all other frames."""
        while not self.is_message(frame := await self.receive()):
            pass
        return frame

    async def send(self, frame: str | bytes) -> None:
        await self.socket.send(frame)

    async def wait_closed(self) -> int:
        """Read until the server closes, and return the close code."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed:
            return self.socket.close_code or 0

    def drop(self) -> None:
        """End the connection without a close frame."""
        self.socket.transport.abort()


class Native(Client):
    path = "/ws/rooms/{}/"

    def parse(self, frame: str | bytes) -> list[Any]:
        assert isinstance(frame, str)
        return [json.loads(line) for line in frame.split("\n") if line]

    def is_message(self, frame: Any) -> bool:
        return bool(frame["type"] == "message")

    async def request(self, kind: str, /, **fields: Any) -> Any:
        """Send a command and return its answer; earlier frames are kept."""
        id = uuid.uuid4().hex
        await self.send(json.dumps({"type": kind, "id": id, **fields}))
        earlier = []
        while (frame := await self.receive()).get("id") != id:
            earlier.append(frame)
        self._waiting.extendleft(reversed(earlier))
        return frame

    async def log_in(self) -> None:
        assert (await self.receive())["type"] == "connected"
        self.name = f"n-{uuid.uuid4().hex[:12]}"
        assert (await self.request("login", name=self.name))["type"] == "reply"

    async def join(self, room: str) -> Any:
        return await self.request("join", room=room)

    def is_joined(self, answer: Any) -> bool:
        return bool(answer["type"] == "reply")

    async def send_message(self, room: str, content: Any, event: str = "message") -> None:
        await self.send(json.dumps({"type": "message", "room": room, "data": content, "event": event}))

    async def drain(self) -> list[Any]:
        await self.request("ping")
        before = list(self._waiting)
        self._waiting.clear()
        return before


class Roomer(Client):
    """Its frames are tuples of room, event, dst, src and payload."""

    path = "/ws/roomer/{}/"

    @staticmethod
    def frame(room: str, event: str, payload: bytes = b"", dst: str = "") -> bytes:
        fields = [room.encode(), event.encode(), dst.encode(), b"", payload]
        return b"".join(len(each).to_bytes(4, "big") + each for each in fields)

    def parse(self, frame: str | bytes) -> list[Any]:
        assert isinstance(frame, bytes)
        fields, at = [], 0
        for _ in range(5):
            length = int.from_bytes(frame[at : at + 4], "big")
            fields.append(frame[at + 4 : at + 4 + length])
            at += 4 + length
        assert at == len(frame), f"not a frame of five fields: {frame!r}"
        return [(*(each.decode() for each in fields[:4]), fields[4])]

    def is_message(self, frame: Any) -> bool:
        return frame[1] not in ("join_ack", "leave_ack", "new_member", "member_left")

    async def log_in(self) -> None:
        room, event, _, self.name, _ = await self.receive()
        assert (room, event) == ("root", "join_ack")

    async def join(self, room: str) -> Any:
        await self.send(self.frame(room, "join"))
        while (frame := await self.receive())[:2] not in ((room, "join_ack"), (room, "leave_ack")):
            pass
        return frame

    def is_joined(self, answer: Any) -> bool:
        return bool(answer[1] == "join_ack")

    async def send_message(self, room: str, content: Any, event: str = "message") -> None:
        await self.send(self.frame(room, event, content))

    async def drain(self) -> list[Any]:
        # A direct message to itself is valid.
        await self.send(self.frame("root", "marker", dst=self.name))
        before = []
        while (frame := await self.receive())[1] != "marker":
            before.append(frame)
        return before


class Rtbroadcaster(Client):
    path = "/ws/rtbroadcaster/{}/"

    @staticmethod
    def message(value: int, room: str = "", **more: Any) -> str:
        plain = {"funcKey": "", "funcParams": [], "stateMessage": False}
        return json.dumps({"uuid": room, "status": {"value": value, "text": "connected"}, **plain, **more})

    def parse(self, frame: str | bytes) -> list[Any]:
        assert isinstance(frame, str)
        return [json.loads(line) for line in frame.split("\n")]

    def is_message(self, frame: Any) -> bool:
        return bool(frame["status"]["value"] == 3 and frame["funcKey"])

    async def log_in(self) -> None:
        """Do nothing: the first frame creates or joins a room."""

    async def create_room(self) -> str:
        """Create a room as its owner, and return its name."""
        await self.send(self.message(1))
        answer = await self.receive()
        assert answer["status"] == {"value": 3, "text": "connected"}, answer
        room: str = answer["uuid"]
        return room

    async def join(self, room: str) -> Any:
        await self.send(self.message(2, room))
        return await self.receive()

    def is_joined(self, answer: Any) -> bool:
        return bool(answer["status"]["value"] == 3)

    async def send_message(
        self, room: str, content: Any, event: str = "message", *, state: bool = False
    ) -> None:
        await self.send(self.message(3, room, funcKey=event, funcParams=content, stateMessage=state))

    async def drain(self) -> list[Any]:
        # A frame that is not JSON is answered with an error, and has no other effect.
        await self.send("marker")
        before = []
        while (frame := await self.receive())["status"]["value"] != 0:
            before.append(frame)
        return before


class Goroomserver(Client):
    path = "/ws/goroomserver/"

    def message(self, kind: int, data: Any, room: str = "") -> str:
        return json.dumps({"appName": self.application, "roomName": room, "eventType": kind, "data": data})

    def parse(self, frame: str | bytes) -> list[Any]:
        assert isinstance(frame, str)
        return [json.loads(frame)]

    def is_message(self, frame: Any) -> bool:
        return bool(frame["eventType"] == 11 and frame["code"] == 200)

    async def request(self, kind: int, data: Any, room: str = "") -> Any:
        await self.send(self.message(kind, data, room))
        while (frame := await self.receive())["eventType"] != kind:
            pass
        return frame

    async def log_in(self) -> None:
        self.name = f"g-{uuid.uuid4().hex[:12]}"
        answer = await self.request(6, {"username": self.name})
        assert answer["code"] == 200, answer

    async def join(self, room: str) -> Any:
        return await self.request(4, {"roomName": room})

    def is_joined(self, answer: Any) -> bool:
        return bool(answer["code"] == 200)

    async def send_message(self, room: str, content: Any, event: str = "message") -> None:
        await self.send(self.message(11, content, room))

    async def drain(self) -> list[Any]:
        await self.send(self.message(99, {}))
        before = []
        while (frame := await self.receive())["eventType"] != 99:
            before.append(frame)
        return before


class Gowsev(Client):
    path = "/ws/gowsev/{}/"

    def parse(self, frame: str | bytes) -> list[Any]:
        assert isinstance(frame, bytes)
        return [frame]

    def is_message(self, frame: Any) -> bool:
        return frame not in (b"OK", b"Invalid message")

    async def log_in(self) -> None:
        """Do nothing: the client does not learn its name."""

    async def join(self, room: str) -> Any:
        await self.send(f"subscribe:{room}")
        return await self.receive()

    def is_joined(self, answer: Any) -> bool:
        return bool(answer == b"OK")

    async def send_message(self, room: str, content: Any, event: str = "message") -> None:
        await self.send(b"publish:" + room.encode() + b":" + content)

    async def drain(self) -> list[Any]:
        await self.send("marker")
        before = []
        while (frame := await self.receive()) != b"Invalid message":
            before.append(frame)
        return before


PROTOCOLS: dict[str, type[Client]] = {
    "native": Native,
    "roomer": Roomer,
    "rtbroadcaster": Rtbroadcaster,
    "goroomserver": Goroomserver,
    "gowsev": Gowsev,
}
