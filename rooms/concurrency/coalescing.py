"""Asking a store for many at once: a crowd that comes in shares a thread's turn and a query."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import Generic, TypeVar

Key = TypeVar("Key")
Question = TypeVar("Question")
Answer = TypeVar("Answer")

# So many are asked for at once; a query has bounds.
MOST = 100
# For so long after each answer others gather: one by one, a crowd would have a thread's turn each.
PAUSE_SECONDS = 0.005


class Together(Generic[Key, Question, Answer]):
    """What is asked while ``answer`` is under way, or just was, goes with the next call of it: nobody is
    answered with what was read before they asked. Belongs to one event loop."""

    def __init__(self, answer: Callable[[dict[Key, Question]], Awaitable[Mapping[Key, Answer]]]) -> None:
        self._answer = answer
        self._waiting: dict[Key, tuple[Question, list[asyncio.Future[Answer]]]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, key: Key, question: Question) -> Answer:
        """The answer, for all who ask with this ``key`` meanwhile. Raises what ``answer`` raises."""
        # One's own: others may go on waiting when nobody waits here any more.
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, (question, []))[1].append(future)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        return await future

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                asked = dict(islice(self._waiting.items(), MOST))
                for key in asked:
                    del self._waiting[key]
                await self._ask(asked)
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self._asking = None

    async def _ask(self, asked: dict[Key, tuple[Question, list[asyncio.Future[Answer]]]]) -> None:
        waiting = [(key, future) for key, (_, futures) in asked.items() for future in futures]
        try:
            answers = await self._answer({key: question for key, (question, _) in asked.items()})
            for key, future in waiting:
                if not future.done():
                    future.set_result(answers[key])
        except Exception as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
        finally:
            for _, future in waiting:
                future.cancel()
