"""The one line over which a process appends to Redis, many to a round trip.

What the ledger is to the database: those who come while one round trip is under way share the next, all is
carried out in the order in which it came, and answered in that order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from rooms.histories.waiting import Completion, CompletionQueue, Place

# A round trip takes at most so many along.
MOST_CALLS = 256
_UNAVAILABLE = "The history does not answer; try again in a moment."


@dataclass(frozen=True, slots=True)
class _Call:
    script: AsyncScript
    keys: Sequence[str]
    arguments: Sequence[Any]


class Pipe:
    """Belongs to one event loop. For a turn and the answer nobody waits longer than ``seconds``."""

    def __init__(self, redis: Redis, seconds: float) -> None:
        self._redis = redis
        self._seconds = seconds
        self._line: CompletionQueue[_Call] = CompletionQueue(
            "The history does not answer; try again in a moment."
        )
        self._waiting: deque[Place[_Call]] = deque()
        self._sending: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._line)

    def call(
        self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[Any], completion: Completion
    ) -> None:
        """The answer is the script's, or why there is none: RedisError, OSError, Unavailable after so long a
        time. Then it may still have been done."""
        self._waiting.append(self._line.add(_Call(script, keys, arguments), completion, self._seconds))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())

    async def close(self) -> None:
        """Wait until everything is answered."""
        while self._sending is not None:
            await asyncio.wait({self._sending})

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), MOST_CALLS)
                places = [each for _ in range(count) if not (each := self._waiting.popleft()).left]
                answers = await self._answers([each.item for each in places])
                self._line.complete(zip(places, answers, strict=True))
        finally:
            self._sending = None

    async def _answers(self, calls: Sequence[_Call]) -> list[Any]:
        """What Redis answers to each, or why it does not."""
        if not calls:
            return []
        try:
            async with asyncio.timeout(self._seconds), self._redis.pipeline(transaction=False) as pipeline:
                told: set[str] = set()
                for call in calls:
                    # Each script is sent along once, since a Redis that was just started knows none: calls
                    # that it refused, and that were made again, would lose their turn.
                    known = call.script.sha in told
                    told.add(call.script.sha)
                    script = ("EVALSHA", call.script.sha) if known else ("EVAL", call.script.script)
                    pipeline.execute_command(*script, len(call.keys), *call.keys, *call.arguments)
                return await pipeline.execute(raise_on_error=False)
        except Exception as error:
            return [error] * len(calls)
