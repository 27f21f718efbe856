"""Asking for many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from rooms.concurrency import coalescing
from rooms.concurrency.coalescing import Together


class Store:
    """Answers when it is let; ``asked`` is every call."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def answer(self, wanted: dict[str, int]) -> Mapping[str, int]:
        self.asked.append(list(wanted))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {key: number * 2 for key, number in wanted.items()}


async def test_what_is_asked_meanwhile_goes_together_with_the_next() -> None:
    store = Store()
    shared: Together[str, int, int] = Together(store.answer)
    first = asyncio.create_task(shared.ask("a", 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # Also what is being asked already: that may have been read before.
    later = [asyncio.create_task(shared.ask(key, number)) for key, number in (("a", 1), ("b", 2), ("b", 2))]
    await asyncio.sleep(0)
    store.gate.set()
    assert [await each for each in (first, *later)] == [2, 2, 4, 4]
    assert store.asked == [["a"], ["a", "b"]]


async def test_after_an_answer_others_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "PAUSE_SECONDS", 0.1)
    store = Store()
    store.gate.set()
    shared: Together[str, int, int] = Together(store.answer)
    await shared.ask("a", 1)
    later = asyncio.create_task(shared.ask("b", 1))
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.gather(later, shared.ask("c", 1))
    assert store.asked == [["a"], ["b", "c"]]


async def test_there_is_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "MOST", 2)
    store = Store()
    store.gate.set()
    shared: Together[str, int, int] = Together(store.answer)
    assert await asyncio.gather(*(shared.ask(key, 1) for key in "abcde")) == [2] * 5
    assert store.asked == [["a", "b"], ["c", "d"], ["e"]]


async def test_an_error_is_everybodys_and_the_next_are_answered() -> None:
    store = Store()
    store.gate.set()
    shared: Together[str, int, int] = Together(store.answer)
    store.error = ValueError("no")
    heard = await asyncio.gather(shared.ask("a", 1), shared.ask("b", 1), return_exceptions=True)
    assert heard == [store.error, store.error]
    store.error = None
    assert await shared.ask("a", 1) == 2


async def test_who_goes_takes_the_answer_from_nobody() -> None:
    store = Store()
    shared: Together[str, int, int] = Together(store.answer)
    going, staying = (asyncio.create_task(shared.ask("a", 1)) for _ in range(2))
    await asyncio.sleep(0)
    going.cancel()
    await asyncio.sleep(0)
    store.gate.set()
    assert await staying == 2
    assert going.cancelled()
