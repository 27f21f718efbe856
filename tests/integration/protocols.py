"""Small raw clients of the five doors, written from the documents alone.

Each says and hears in its protocol's own words and shares no code with the server. Nothing here sleeps: a
test that wants to see that something does *not* arrive asks for something that must come later
(`answers()`) and looks at what came before it. Next in the flow: `sites.py` opens them.
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

#: Seconds after which something that must come is given up.
PATIENCE = 30.0


class Visitor(ABC):
    """One connection to one door."""

    path: ClassVar[str]

    def __init__(self, socket: ClientConnection, application: str) -> None:
        self.socket = socket
        self.application = application
        self.name = ""
        self._waiting: deque[Any] = deque()

    @abstractmethod
    async def greet(self) -> None:
        """What has to be said and heard before anything else; afterwards the client has a name."""

    @abstractmethod
    async def enter(self, room: str) -> Any:
        """Come into a room; what the server answered."""

    @abstractmethod
    def admits(self, answer: Any) -> bool:
        """Whether this answer to ``enter`` lets the client in."""

    @abstractmethod
    async def say(self, room: str, content: Any, event: str = "message") -> None:
        """Say something in a room as this protocol's clients do, without waiting for an answer."""

    @abstractmethod
    async def answers(self) -> list[Any]:
        """Ask something harmless and wait for its answer; what came before that and was not looked at."""

    def read(self, frame: str | bytes) -> list[Any]:
        """The messages of a frame."""
        return [frame]

    def is_message(self, heard: Any) -> bool:
        """Whether this is something said in a room."""
        return True

    async def hear(self) -> Any:
        """The next message of the server, whatever it is. Raises ConnectionClosed."""
        while not self._waiting:
            self._waiting.extend(self.read(await asyncio.wait_for(self.socket.recv(), PATIENCE)))
        return self._waiting.popleft()

    async def told(self) -> Any:
        """The next thing said in a room, passing over all else."""
        while not self.is_message(heard := await self.hear()):
            pass
        return heard

    async def send(self, frame: str | bytes) -> None:
        await self.socket.send(frame)

    async def closed(self) -> int:
        """Read until the server closes; the code."""
        try:
            while True:
                await self.hear()
        except ConnectionClosed:
            return self.socket.close_code or 0

    def drop(self) -> None:
        """Lose the connection: no close frame, no farewell."""
        self.socket.transport.abort()


class Native(Visitor):
    path = "/ws/rooms/{}/"

    def read(self, frame: str | bytes) -> list[Any]:
        assert isinstance(frame, str)
        return [json.loads(line) for line in frame.split("\n") if line]

    def is_message(self, heard: Any) -> bool:
        return bool(heard["type"] == "message")

    async def ask(self, kind: str, /, **fields: Any) -> Any:
        """A request's answer; what comes before it is kept."""
        id = uuid.uuid4().hex
        await self.send(json.dumps({"type": kind, "id": id, **fields}))
        kept = []
        while (heard := await self.hear()).get("id") != id:
            kept.append(heard)
        self._waiting.extendleft(reversed(kept))
        return heard

    async def greet(self) -> None:
        assert (await self.hear())["type"] == "connected"
        self.name = f"n-{uuid.uuid4().hex[:12]}"
        assert (await self.ask("login", name=self.name))["type"] == "reply"

    async def enter(self, room: str) -> Any:
        return await self.ask("join", room=room)

    def admits(self, answer: Any) -> bool:
        return bool(answer["type"] == "reply")

    async def say(self, room: str, content: Any, event: str = "message") -> None:
        await self.send(json.dumps({"type": "message", "room": room, "data": content, "event": event}))

    async def answers(self) -> list[Any]:
        await self.ask("ping")
        before = list(self._waiting)
        self._waiting.clear()
        return before


class Roomer(Visitor):
    """``hear`` gives ``(room, event, dst, src, payload)``."""

    path = "/ws/roomer/{}/"

    @staticmethod
    def frame(room: str, event: str, payload: bytes = b"", dst: str = "") -> bytes:
        fields = [room.encode(), event.encode(), dst.encode(), b"", payload]
        return b"".join(len(each).to_bytes(4, "big") + each for each in fields)

    def read(self, frame: str | bytes) -> list[Any]:
        assert isinstance(frame, bytes)
        fields, at = [], 0
        for _ in range(5):
            length = int.from_bytes(frame[at : at + 4], "big")
            fields.append(frame[at + 4 : at + 4 + length])
            at += 4 + length
        assert at == len(frame), f"not a frame of five fields: {frame!r}"
        return [(*(each.decode() for each in fields[:4]), fields[4])]

    def is_message(self, heard: Any) -> bool:
        return heard[1] not in ("join_ack", "leave_ack", "new_member", "member_left")

    async def greet(self) -> None:
        room, event, _, self.name, _ = await self.hear()
        assert (room, event) == ("root", "join_ack")

    async def enter(self, room: str) -> Any:
        await self.send(self.frame(room, "join"))
        while (heard := await self.hear())[:2] not in ((room, "join_ack"), (room, "leave_ack")):
            pass
        return heard

    def admits(self, answer: Any) -> bool:
        return bool(answer[1] == "join_ack")

    async def say(self, room: str, content: Any, event: str = "message") -> None:
        await self.send(self.frame(room, event, content))

    async def answers(self) -> list[Any]:
        # To itself, which is lawful.
        await self.send(self.frame("root", "marker", dst=self.name))
        before = []
        while (heard := await self.hear())[1] != "marker":
            before.append(heard)
        return before


class Rtbroadcaster(Visitor):
    path = "/ws/rtbroadcaster/{}/"

    @staticmethod
    def message(value: int, room: str = "", **more: Any) -> str:
        plain = {"funcKey": "", "funcParams": [], "stateMessage": False}
        return json.dumps({"uuid": room, "status": {"value": value, "text": "connected"}, **plain, **more})

    def read(self, frame: str | bytes) -> list[Any]:
        assert isinstance(frame, str)
        return [json.loads(line) for line in frame.split("\n")]

    def is_message(self, heard: Any) -> bool:
        return bool(heard["status"]["value"] == 3 and heard["funcKey"])

    async def greet(self) -> None:
        """Nothing is said before a room is made or entered."""

    async def make(self) -> str:
        """Make a room and own it; its name."""
        await self.send(self.message(1))
        answer = await self.hear()
        assert answer["status"] == {"value": 3, "text": "connected"}, answer
        room: str = answer["uuid"]
        return room

    async def enter(self, room: str) -> Any:
        await self.send(self.message(2, room))
        return await self.hear()

    def admits(self, answer: Any) -> bool:
        return bool(answer["status"]["value"] == 3)

    async def say(self, room: str, content: Any, event: str = "message", *, state: bool = False) -> None:
        await self.send(self.message(3, room, funcKey=event, funcParams=content, stateMessage=state))

    async def answers(self) -> list[Any]:
        # What is no JSON is answered, and nothing else becomes of it.
        await self.send("marker")
        before = []
        while (heard := await self.hear())["status"]["value"] != 0:
            before.append(heard)
        return before


class Goroomserver(Visitor):
    path = "/ws/goroomserver/"

    def message(self, kind: int, data: Any, room: str = "") -> str:
        return json.dumps({"appName": self.application, "roomName": room, "eventType": kind, "data": data})

    def read(self, frame: str | bytes) -> list[Any]:
        assert isinstance(frame, str)
        return [json.loads(frame)]

    def is_message(self, heard: Any) -> bool:
        return bool(heard["eventType"] == 11 and heard["code"] == 200)

    async def ask(self, kind: int, data: Any, room: str = "") -> Any:
        await self.send(self.message(kind, data, room))
        while (heard := await self.hear())["eventType"] != kind:
            pass
        return heard

    async def greet(self) -> None:
        self.name = f"g-{uuid.uuid4().hex[:12]}"
        answer = await self.ask(6, {"username": self.name})
        assert answer["code"] == 200, answer

    async def enter(self, room: str) -> Any:
        return await self.ask(4, {"roomName": room})

    def admits(self, answer: Any) -> bool:
        return bool(answer["code"] == 200)

    async def say(self, room: str, content: Any, event: str = "message") -> None:
        await self.send(self.message(11, content, room))

    async def answers(self) -> list[Any]:
        await self.send(self.message(99, {}))
        before = []
        while (heard := await self.hear())["eventType"] != 99:
            before.append(heard)
        return before


class Gowsev(Visitor):
    path = "/ws/gowsev/{}/"

    def read(self, frame: str | bytes) -> list[Any]:
        assert isinstance(frame, bytes)
        return [frame]

    def is_message(self, heard: Any) -> bool:
        return heard not in (b"OK", b"Invalid message")

    async def greet(self) -> None:
        """It has no name that it is told."""

    async def enter(self, room: str) -> Any:
        await self.send(f"subscribe:{room}")
        return await self.hear()

    def admits(self, answer: Any) -> bool:
        return bool(answer == b"OK")

    async def say(self, room: str, content: Any, event: str = "message") -> None:
        await self.send(b"publish:" + room.encode() + b":" + content)

    async def answers(self) -> list[Any]:
        await self.send("marker")
        before = []
        while (heard := await self.hear()) != b"Invalid message":
            before.append(heard)
        return before


PROTOCOLS: dict[str, type[Visitor]] = {
    "native": Native,
    "roomer": Roomer,
    "rtbroadcaster": Rtbroadcaster,
    "goroomserver": Goroomserver,
    "gowsev": Gowsev,
}
