"""Who waits: all are answered, then all tell; nobody waits too long, and nobody harms another."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from rooms.histories.waiting import Completion, CompletionQueue
from rooms.protocol.errors import Unavailable

REFUSAL = "Come again."


class One(Completion):
    """Notes in a log that all of a test share what happens to it."""

    def __init__(self, name: str, log: list[Any], broken: bool = False) -> None:
        self.name = name
        self.log = log
        self.broken = broken
        self.answered = asyncio.Event()

    def complete(self, result: Any) -> None:
        self.answered.set()
        self.log.append((self.name, result))
        if self.broken:
            raise ValueError("broken")

    def finish(self) -> None:
        self.log.append(self.name)


async def test_all_are_answered_before_the_first_tells() -> None:
    log: list[Any] = []
    line: CompletionQueue[int] = CompletionQueue(REFUSAL)
    places = [line.add(number, One(str(number), log), 60) for number in range(3)]
    line.complete([(place, place.item * 10) for place in places[:2]])
    assert log == [("0", 0), ("1", 10), "0", "1"]
    assert len(line) == 1
    line.complete([(places[2], 20)])
    assert log[4:] == [("2", 20), "2"]
    assert len(line) == 0


async def test_what_fails_for_one_fails_for_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    line: CompletionQueue[int] = CompletionQueue(REFUSAL)
    places = [line.add(0, One(name, log, broken=name == "a"), 60) for name in "ab"]
    with caplog.at_level(logging.ERROR, "rooms.histories"):
        line.complete([(place, None) for place in places])
    assert log == [("a", None), ("b", None), "a", "b"]
    assert "broken" in caplog.text


async def test_nobody_waits_too_long_and_is_answered_twice() -> None:
    log: list[Any] = []
    line: CompletionQueue[int] = CompletionQueue(REFUSAL)
    early, late = One("early", log), One("late", log)
    places = [line.add(0, early, 0.01), line.add(0, late, 0.02), line.add(0, One("patient", log), 60)]
    for each in (early, late):
        async with asyncio.timeout(20):
            await each.answered.wait()
    assert [(type(entry[1]), str(entry[1])) for entry in log if isinstance(entry, tuple)] == [
        (Unavailable, REFUSAL)
    ] * 2
    assert [place.left for place in places] == [True, True, False]
    line.complete([(place, "kept") for place in places])
    assert log[4:] == [("patient", "kept"), "patient"]
