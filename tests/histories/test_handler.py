"""The histories of a site."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rooms.conf import get_settings
from rooms.histories import HistoryHandler
from rooms.histories.memory import MemoryHistory
from rooms.node import node as node_module
from rooms.node import periodic
from rooms.node.node import Node
from rooms.protocol.errors import InternalError, Unavailable


def histories() -> HistoryHandler:
    return HistoryHandler(get_settings().histories)


async def test_histories_have_the_names_of_the_policies() -> None:
    site = histories()
    assert list(site) == ["database", "memory", "none"]
    assert isinstance(site["memory"], MemoryHistory)
    with pytest.raises(InternalError):
        site["redis"]
    await site.close()


async def test_a_history_that_cannot_be_pruned_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = histories()
    calls: list[bool] = []

    async def fails(*, dry_run: bool = False) -> int:
        raise Unavailable("not now")

    async def prunes(*, dry_run: bool = False) -> int:
        calls.append(dry_run)
        return 3

    monkeypatch.setattr(site["database"], "prune", fails)
    monkeypatch.setattr(site["memory"], "prune", prunes)
    assert await site.prune() == 3
    assert await site.prune(dry_run=True) == 3
    assert calls == [False, True]
    await site.close()


@pytest.mark.django_db(transaction=True)
async def test_a_node_prunes_periodically(monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = asyncio.Event()

    async def prune(self: Any, *, dry_run: bool = False) -> int:
        assert not dry_run
        pruned.set()
        return 0

    monkeypatch.setattr(HistoryHandler, "prune", prune)
    monkeypatch.setattr(node_module, "PRUNE_SECONDS", 0)
    monkeypatch.setattr(periodic, "TICK_SECONDS", 0.01)
    async with Node() as node:
        await node.start()
        async with asyncio.timeout(60):
            await pruned.wait()
