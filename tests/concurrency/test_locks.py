"""Locks by key: one task at a time for each key, and nothing left of unused keys."""

from __future__ import annotations

import asyncio

from rooms.concurrency.locks import Locks


async def test_tasks_of_one_key_run_one_after_the_other() -> None:
    locks, order = Locks(), list[str]()

    async def work(name: str) -> None:
        async with locks.of("key"):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    await asyncio.gather(work("a"), work("b"))
    assert order == ["a begins", "a ends", "b begins", "b ends"]


async def test_tasks_of_different_keys_run_side_by_side() -> None:
    locks, together = Locks(), asyncio.Barrier(2)

    async def work(key: str) -> None:
        async with locks.of(key):
            await together.wait()

    async with asyncio.timeout(60):
        await asyncio.gather(work("a"), work("b"))


async def test_an_unused_lock_is_deleted() -> None:
    locks = Locks()
    async with locks.of("key"):
        assert list(locks._locks) == ["key"]
    assert list(locks._locks) == []
