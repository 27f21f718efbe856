"""All histories of a site together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rooms.conf import get_settings
from rooms.histories import HistoryHandler
from rooms.histories.memory import MemoryHistory
from rooms.node import node as engine_module
from rooms.node import periodic
from rooms.node.node import Node
from rooms.protocol.errors import InternalError, Unavailable


def histories() -> HistoryHandler:
    return HistoryHandler(get_settings().histories)


async def test_they_go_by_the_names_of_the_policies() -> None:
    site = histories()
    assert list(site) == ["database", "memory", "none"]
    assert isinstance(site["memory"], MemoryHistory)
    with pytest.raises(InternalError):
        site["redis"]
    await site.close()


async def test_one_that_cannot_be_pruned_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    site = histories()
    asked: list[bool] = []

    async def fails(*, dry_run: bool = False) -> int:
        raise Unavailable("not now")

    async def prunes(*, dry_run: bool = False) -> int:
        asked.append(dry_run)
        return 3

    monkeypatch.setattr(site["database"], "prune", fails)
    monkeypatch.setattr(site["memory"], "prune", prunes)
    assert await site.prune() == 3
    assert await site.prune(dry_run=True) == 3
    assert asked == [False, True]
    await site.close()


@pytest.mark.django_db(transaction=True)
async def test_a_server_prunes_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = asyncio.Event()

    async def prune(self: Any, *, dry_run: bool = False) -> int:
        assert not dry_run
        pruned.set()
        return 0

    monkeypatch.setattr(HistoryHandler, "prune", prune)
    monkeypatch.setattr(engine_module, "PRUNE_SECONDS", 0)
    monkeypatch.setattr(periodic, "TICK_SECONDS", 0.01)
    async with Node() as node:
        await node.start()
        async with asyncio.timeout(20):
            await pruned.wait()
