"""Background tasks, delayed actions and the user of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from rooms.hub.connection import Connection
from rooms.node.context import BackgroundTasks, DelayedActions, require_user
from rooms.protocol.errors import NotLoggedIn, Unavailable
from rooms.protocol.native import Native
from rooms.protocol.types import User


async def test_drain_waits_for_all_tasks_and_the_tasks_that_they_spawn() -> None:
    tasks, done = BackgroundTasks(), list[str]()

    async def work(name: str, further: int) -> None:
        await asyncio.sleep(0)
        if further:
            tasks.spawn(work(f"{name}+", further - 1))
        done.append(name)

    tasks.spawn(work("a", 2))
    tasks.spawn(work("b", 0))
    await tasks.drain()
    assert sorted(done) == ["a", "a+", "a++", "b"]
    await tasks.drain()


async def test_a_failed_task_is_logged_and_does_not_affect_others(caplog: pytest.LogCaptureFixture) -> None:
    tasks = BackgroundTasks()

    async def fail(error: BaseException) -> None:
        raise error

    tasks.spawn(fail(Unavailable("Redis is down.")))
    tasks.spawn(fail(ValueError("unexpected")))
    tasks.spawn(fail(asyncio.CancelledError()))
    await tasks.drain()
    await asyncio.sleep(0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "Redis is down." in caplog.text
    assert "unexpected" in caplog.text


async def test_delayed_actions_are_due_in_the_order_of_their_times(clock: SimpleNamespace) -> None:
    delayed, called = DelayedActions(), list[str]()

    def action_of(name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def action() -> None:
            called.append(name)

        return action

    for seconds, name in ((15, "late"), (5, "early"), (5, "early too"), (0, "now")):
        delayed.add(seconds, action_of(name))

    async def run_due() -> None:
        for action in delayed.pop_due():
            await action()

    await run_due()
    assert called == ["now"]
    clock.now += 5
    await run_due()
    assert called == ["now", "early", "early too"]
    await run_due()
    clock.now += 100
    await run_due()
    assert called == ["now", "early", "early too", "late"]


def test_the_user_of_a_connection_is_required() -> None:
    connection = Connection("c", Native())
    with pytest.raises(NotLoggedIn):
        require_user(connection)
    connection.user = User(name="ann", id="1", guest=False)
    assert require_user(connection).name == "ann"
