"""Changes of one group that are made together: which, in what order, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from django.db import OperationalError

from rooms.presence import group_commit
from rooms.presence.group_commit import Entry, GroupCommit
from rooms.protocol.errors import Unavailable

pytestmark = pytest.mark.database

# Nothing takes so long but a test that waits for what never comes.
PATIENCE = 20


class Store:
    """Notes what it is to write. While the gate is shut it does not come to its end."""

    def __init__(self) -> None:
        self.written: list[tuple[str, list[str]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.wrong: dict[str, Exception] = {}

    async def __call__(self, group: str, entries: Sequence[Entry[str]]) -> list[Any]:
        changes = [entry.change for entry in entries]
        self.written.append((group, changes))
        await self.gate.wait()
        for change in changes:
            if change in self.wrong:
                raise self.wrong[change]
        return [change.upper() for change in changes]


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def commit(store: Store) -> GroupCommit[str]:
    return GroupCommit(store, 2)


async def test_what_comes_meanwhile_goes_together_and_in_order(
    store: Store, commit: GroupCommit[str]
) -> None:
    store.gate.clear()
    first = commit.submit("g", "a")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [commit.submit("g", change) for change in "bcd"]
    others[1].cancel()
    store.gate.set()
    assert await first == "A"
    assert [await others[0], await others[2]] == ["B", "D"]
    assert store.written == [("g", ["a"]), ("g", ["b", "d"])]


async def test_no_more_than_so_many_go_together(
    store: Store, commit: GroupCommit[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MOST_AT_ONCE", 2)
    assert await asyncio.gather(*(commit.submit("g", change) for change in "abc")) == ["A", "B", "C"]
    assert store.written == [("g", ["a", "b"]), ("g", ["c"])]


async def test_groups_go_side_by_side_but_no_more_than_there_are_threads(
    store: Store, commit: GroupCommit[str]
) -> None:
    store.gate.clear()
    asked = [commit.submit(group, "a") for group in "ghi"]
    for _ in range(5):
        await asyncio.sleep(0)
    assert [group for group, _ in store.written] == ["g", "h"]
    store.gate.set()
    assert await asyncio.gather(*asked) == ["A"] * 3
    await commit.settle()
    assert store.written[2:] == [("i", ["a"])]


async def test_one_at_fault_harms_no_other(store: Store, commit: GroupCommit[str]) -> None:
    store.wrong["b"] = LookupError("b")
    answers = await asyncio.gather(*(commit.submit("g", change) for change in "abc"), return_exceptions=True)
    assert [answers[0], answers[2]] == ["A", "C"]
    assert isinstance(answers[1], LookupError)


@pytest.mark.parametrize("error", [OperationalError("gone"), Unavailable("gone")])
async def test_where_the_store_is_away_nothing_is_tried_one_by_one(
    store: Store, commit: GroupCommit[str], error: Exception
) -> None:
    store.wrong["b"] = error
    answers = await asyncio.gather(*(commit.submit("g", change) for change in "abc"), return_exceptions=True)
    assert answers == [error] * 3
    assert len(store.written) == 1


async def test_when_nothing_goes_on_all_are_told_and_what_follows_waits(
    store: Store, commit: GroupCommit[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "STATEMENT_TIMEOUT", 0.02)
    store.gate.clear()
    # Of three groups two have threads.
    asked = [commit.submit(group, "a") for group in "gghi"]
    async with asyncio.timeout(PATIENCE):
        for each in asked:
            with pytest.raises(Unavailable) as raised:
                await each
            assert raised.value.retry
        later = commit.submit("g", "b")
        with pytest.raises(Unavailable):
            await later
        monkeypatch.undo()
        last = commit.submit("g", "c")
        store.gate.set()
        assert await last == "C"
        await commit.settle()
    # The contrary of what was given up comes after it.
    assert [each for each in store.written if each[0] == "g"] == [("g", ["a", "a"]), ("g", ["c"])]


async def test_too_many_are_not_kept_waiting(
    store: Store, commit: GroupCommit[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MOST_WAITING", 2)
    asked = [commit.submit("g", change) for change in "ab"]
    with pytest.raises(Unavailable, match="busy"):
        commit.submit("h", "c")
    assert await asyncio.gather(*asked) == ["A", "B"]
    assert await commit.submit("h", "c") == "C"
