"""Who speaks and who listens: clients that come back by the written rules, and note all that the wire says.

``tests/reconnecting.py`` removes doubles and mends holes, as a client should. The oracle wants to know of
them, so a witness writes down what came before its own client looks at it.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from tests.chaos.logs import Acknowledged, Entered, Heard, Left, Logs, Mark, Sent, Spell
from tests.chaos.sites import read, written
from tests.reconnecting import Frame, Reconnecting

#: So many messages of one sender are under way at once, in all its rooms together.
UNDER_WAY = 8


async def pause(unless: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until the event."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await unless.wait()


class Witness(Reconnecting):
    """A client that writes everything it is told into the logs."""

    def __init__(self, addresses: Sequence[str], name: str, logs: Logs, seed: str, **more: Any) -> None:
        self.chance = random.Random(f"{seed} {name}")
        # Nobody begins with the same address: their loads are spread, and so are the ways that fail.
        turned = self.chance.randrange(len(addresses))
        addresses = [*addresses[turned:], *addresses[:turned]]
        super().__init__(addresses, name, random=self.chance, patience=float("inf"), **more)
        self.logs = logs
        self.heard: dict[str, int] = {}
        """The newest number heard in each room."""
        self._since: dict[str, float] = {}

    async def _ask(self, kind: str, fields: Frame, heard: Callable[[Frame], None] | None = None) -> Frame:
        if kind != "join" or heard is None:
            return await super()._ask(kind, fields, heard)
        # As it goes out now: the client's own note of it moves on with every push.
        since = fields["since"]["seq"] if "since" in fields else None

        def entered(reply: Frame) -> None:
            self._entered(fields["room"], since, reply)
            heard(reply)

        return await super()._ask(kind, fields, entered)

    def _entered(self, room: str, since: int | None, reply: Frame) -> None:
        position, messages = reply["position"], reply["messages"]
        self.logs.clients[self.name].append(
            Entered(room, position["epoch"], position["seq"], len(messages), reply["recovered"], since)
        )
        for frame in messages:
            self._note(frame)
        self.heard[room] = max(self.heard.get(room, 0), position["seq"])
        self._since.setdefault(room, monotonic())

    def _message(self, frame: Frame) -> None:
        self._note(frame)
        super()._message(frame)

    def _note(self, frame: Frame) -> None:
        mark, text = read(frame["from"]["name"], frame["data"])
        self.logs.clients[self.name].append(Heard(frame["room"], frame["seq"], mark, sys.intern(text)))
        self.heard[frame["room"]] = frame["seq"]

    def _moved(self, kind: str, room: str, user: Frame, reason: str) -> None:
        if kind == "left":
            self.logs.departures.append(Left(self.name, room, user["name"], monotonic()))
        super()._moved(kind, room, user, reason)

    def _lose(self) -> None:
        for room, since in self._since.items():
            self.logs.spells.append(Spell(room, self.name, since, monotonic()))
        self._since.clear()
        super()._lose()

    async def leave(self, room: str) -> None:
        """As in any client."""
        since = self._since.pop(room, None)
        if since is not None:
            self.logs.spells.append(Spell(room, self.name, since, monotonic()))
        await super().leave(room)

    @property
    def is_back(self) -> bool:
        """Whether it is in every room that it has ever entered."""
        return self._since.keys() == self.heard.keys()

    def stay(self) -> None:
        """This is the end of the run, and we are still here."""
        for room, since in self._since.items():
            self.logs.spells.append(Spell(room, self.name, since, None))
        self._since.clear()

    async def members(self, room: str) -> frozenset[str]:
        """Everybody in the room, as the server says."""
        names: list[str] = []
        while True:
            after = {"after": names[-1]} if names else {}
            page = await self.request("members", room=room, **after)
            names += [user["name"] for user in page["members"]]
            if not page["more"]:
                return frozenset(names)


class Slow(Witness):
    """Reads so slowly that it falls behind, until it is told to hurry. What it notices of people it notices
    late, its own end as well."""

    slowness = 0.2

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, slowness=self.slowness)

    def hurry(self) -> None:
        """Read what there is."""
        self._slowness = 0.0

    def _moved(self, kind: str, room: str, user: Frame, reason: str) -> None:
        Reconnecting._moved(self, kind, room, user, reason)


class Flapping(Witness):
    """Comes and goes, and now and then stays away for some seconds."""

    async def flap(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(1, 6))
            self.drop()

    def _wait(self) -> float:
        away = self.chance.uniform(2, 8) if self.chance.random() < 0.2 else 0
        return super()._wait() + away


class Sender(Witness):
    """Says numbered messages in its rooms, several at once, in order within each."""

    number = 0

    async def speak(
        self, rooms: Sequence[str], wanted: Callable[[], bool], seconds: float, enough: asyncio.Event
    ) -> None:
        """Until no more is wanted and everything is acknowledged; ``seconds`` apart on average."""
        places = asyncio.Semaphore(UNDER_WAY)

        async def one(room: str) -> None:
            try:
                await self.say(room)
            finally:
                places.release()

        async with asyncio.TaskGroup() as tasks:
            while wanted():
                await pause(enough, self.chance.uniform(0, 2 * seconds))
                await places.acquire()
                tasks.create_task(one(self.chance.choice(rooms)))

    async def say(self, room: str) -> None:
        """One message, until it is acknowledged."""
        self.number += 1
        mark = Mark(self.name, self.number)
        text = sys.intern(f"{self.name} {self.number} " + "abc" * self.chance.randrange(40))
        self.logs.sent.append(Sent(room, mark, text))
        seq = await self.send(room, written(mark, text), key=f"{self.name}-{self.number}")
        assert seq is not None
        self.logs.acknowledged.append(Acknowledged(room, mark, seq))
