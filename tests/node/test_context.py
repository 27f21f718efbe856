"""Tasks, departures, and who somebody is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from rooms.hub.connection import Connection
from rooms.node.context import BackgroundTasks, DelayedActions, require_user
from rooms.protocol.errors import NotLoggedIn, Unavailable
from rooms.protocol.native import Native
from rooms.protocol.types import User


async def test_settling_waits_for_all_work_and_what_it_begins() -> None:
    tasks, done = BackgroundTasks(), list[str]()

    async def work(name: str, further: int) -> None:
        await asyncio.sleep(0)
        if further:
            tasks.spawn(work(f"{name}+", further - 1))
        done.append(name)

    tasks.spawn(work("a", 2))
    tasks.spawn(work("b", 0))
    await tasks.settle()
    assert sorted(done) == ["a", "a+", "a++", "b"]
    await tasks.settle()


async def test_work_that_fails_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    tasks = BackgroundTasks()

    async def fail(error: BaseException) -> None:
        raise error

    tasks.spawn(fail(Unavailable("Redis is down.")))
    tasks.spawn(fail(ValueError("unforeseen")))
    tasks.spawn(fail(asyncio.CancelledError()))
    await tasks.settle()
    await asyncio.sleep(0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "Redis is down." in caplog.text
    assert "unforeseen" in caplog.text


def test_departures_come_when_they_are_due_in_the_order_of_their_times(clock: SimpleNamespace) -> None:
    departures, called = DelayedActions(), list[str]()

    def leaving(name: str):
        async def leave() -> None:
            called.append(name)

        return leave

    for seconds, name in ((15, "late"), (5, "early"), (5, "early too"), (0, "now")):
        departures.add(seconds, leaving(name))

    def due() -> None:
        for action in departures.due():
            asyncio.run(action())

    due()
    assert called == ["now"]
    clock.now += 5
    due()
    assert called == ["now", "early", "early too"]
    due()
    clock.now += 100
    due()
    assert called == ["now", "early", "early too", "late"]


def test_who_somebody_is() -> None:
    connection = Connection("c", Native())
    with pytest.raises(NotLoggedIn):
        require_user(connection)
    connection.user = User(name="ann", id="1", guest=False)
    assert require_user(connection).name == "ann"
