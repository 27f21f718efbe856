"""Clients of a run: they reconnect by the rules and log everything that arrives.

``tests/reconnecting.py`` drops duplicates and fills gaps, as a client should. The oracle checks for both, so
a witness logs each frame before its own client handles it.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from tests.chaos.logs import Acknowledged, Departure, Joined, Logs, Mark, Received, Sent, Stay
from tests.chaos.sites import message_data, parse
from tests.reconnecting import Frame, Reconnecting

#: A sender has at most this many messages in flight, in all its rooms together.
MAX_IN_FLIGHT = 8


async def pause(unless: asyncio.Event, seconds: float) -> None:
    """Wait for the time or the event, whichever is first."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await unless.wait()


class Witness(Reconnecting):
    """A client that logs everything it receives."""

    def __init__(self, addresses: Sequence[str], name: str, logs: Logs, seed: str, **more: Any) -> None:
        self.chance = random.Random(f"{seed} {name}")
        # Clients start with different addresses, which spreads their load and their failures.
        turned = self.chance.randrange(len(addresses))
        addresses = [*addresses[turned:], *addresses[:turned]]
        super().__init__(addresses, name, random=self.chance, patience=float("inf"), **more)
        self.logs = logs
        self.newest: dict[str, int] = {}
        """The newest number received in each room."""
        self._since: dict[str, float] = {}

    async def _ask(self, kind: str, fields: Frame, on_reply: Callable[[Frame], None] | None = None) -> Frame:
        if kind != "join" or on_reply is None:
            return await super()._ask(kind, fields, on_reply)
        # As it is sent now: the client's own position moves on with every event.
        since = fields["since"]["seq"] if "since" in fields else None

        def log_first(reply: Frame) -> None:
            self._log_join(fields["room"], since, reply)
            on_reply(reply)

        return await super()._ask(kind, fields, log_first)

    def _log_join(self, room: str, since: int | None, reply: Frame) -> None:
        position, messages = reply["position"], reply["messages"]
        self.logs.clients[self.name].append(
            Joined(room, position["epoch"], position["seq"], len(messages), reply["recovered"], since)
        )
        for frame in messages:
            self._log_message(frame)
        self.newest[room] = max(self.newest.get(room, 0), position["seq"])
        self._since.setdefault(room, monotonic())

    def _message(self, frame: Frame) -> None:
        self._log_message(frame)
        super()._message(frame)

    def _log_message(self, frame: Frame) -> None:
        mark, text = parse(frame["from"]["name"], frame["data"])
        self.logs.clients[self.name].append(Received(frame["room"], frame["seq"], mark, sys.intern(text)))
        self.newest[frame["room"]] = frame["seq"]

    def _moved(self, kind: str, room: str, user: Frame, reason: str) -> None:
        if kind == "left":
            self.logs.departures.append(Departure(self.name, room, user["name"], monotonic()))
        super()._moved(kind, room, user, reason)

    def _lose(self) -> None:
        for room, since in self._since.items():
            self.logs.stays.append(Stay(room, self.name, since, monotonic()))
        self._since.clear()
        super()._lose()

    async def leave(self, room: str) -> None:
        """Leave a room, as any client does."""
        since = self._since.pop(room, None)
        if since is not None:
            self.logs.stays.append(Stay(room, self.name, since, monotonic()))
        await super().leave(room)

    @property
    def is_in_all_rooms(self) -> bool:
        """Whether it is in every room that it ever joined."""
        return self._since.keys() == self.newest.keys()

    def end_stays(self) -> None:
        """Log that it is in its rooms at the end of the run."""
        for room, since in self._since.items():
            self.logs.stays.append(Stay(room, self.name, since, None))
        self._since.clear()

    async def members(self, room: str) -> frozenset[str]:
        """Return the names of all members of a room, as the server lists them."""
        names: list[str] = []
        while True:
            after = {"after": names[-1]} if names else {}
            page = await self.request("members", room=room, **after)
            names += [user["name"] for user in page["members"]]
            if not page["more"]:
                return frozenset(names)


class Slow(Witness):
    """Reads so slowly that it lags behind. It notices presence late, the end of its connection too."""

    slowness = 0.2

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, slowness=self.slowness)

    def hurry(self) -> None:
        """Read without pauses from now on."""
        self._slowness = 0.0

    def _moved(self, kind: str, room: str, user: Frame, reason: str) -> None:
        Reconnecting._moved(self, kind, room, user, reason)


class Flapping(Witness):
    """Drops its connection again and again, and sometimes stays away for seconds."""

    async def flap(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(1, 6))
            self.drop()

    def _wait(self) -> float:
        away = self.chance.uniform(2, 8) if self.chance.random() < 0.2 else 0
        return super()._wait() + away


class Sender(Witness):
    """Sends numbered messages to its rooms, several at once, in order within each room."""

    number = 0

    async def send_all(
        self, rooms: Sequence[str], wanted: Callable[[], bool], seconds: float, enough: asyncio.Event
    ) -> None:
        """Send while messages are wanted, ``seconds`` apart on average, until all are acknowledged."""
        in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)

        async def one(room: str) -> None:
            try:
                await self.send_next(room)
            finally:
                in_flight.release()

        async with asyncio.TaskGroup() as tasks:
            while wanted():
                await pause(enough, self.chance.uniform(0, 2 * seconds))
                await in_flight.acquire()
                tasks.create_task(one(self.chance.choice(rooms)))

    async def send_next(self, room: str) -> None:
        """Send one message until it is acknowledged."""
        self.number += 1
        mark = Mark(self.name, self.number)
        text = sys.intern(f"{self.name} {self.number} " + "abc" * self.chance.randrange(40))
        self.logs.sent.append(Sent(room, mark, text))
        seq = await self.send(room, message_data(mark, text), key=f"{self.name}-{self.number}")
        assert seq is not None
        self.logs.acknowledged.append(Acknowledged(room, mark, seq))
