"""Calls into the event loop of the node, from that loop and from others."""

from __future__ import annotations

import asyncio

import pytest

from rooms.concurrency.loops import in_loop


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def fail() -> None:
    raise LookupError("no")


async def test_a_call_in_the_loop_itself_runs_there() -> None:
    loop = asyncio.get_running_loop()
    assert await in_loop(loop, running_loop()) is loop


async def test_a_call_from_another_loop_runs_in_the_given_loop() -> None:
    loop = asyncio.get_running_loop()

    async def call() -> asyncio.AbstractEventLoop:
        assert asyncio.get_running_loop() is not loop
        return await in_loop(loop, running_loop())

    assert await asyncio.to_thread(asyncio.run, call()) is loop


async def test_an_error_is_raised_in_the_loop_of_the_caller() -> None:
    loop = asyncio.get_running_loop()

    async def call() -> None:
        with pytest.raises(LookupError, match="no"):
            await in_loop(loop, fail())

    await asyncio.to_thread(asyncio.run, call())
