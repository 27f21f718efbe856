"""Servers that break a promise each, to see that the oracle finds it.

A variant replaces something in a running server from outside, chosen by the environment variable
ROOMS_CHAOS_VARIANT; nothing of it is known to ``rooms/``.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from django.apps import AppConfig


def acknowledges_before_the_commit() -> None:
    """The answer goes out at once, the message is stored a little later."""
    import msgspec

    from rooms.histories import Appended, FutureCompletion, complete_alone
    from rooms.histories.database import DatabaseHistory

    stores = DatabaseHistory.append
    given: defaultdict[int, int] = defaultdict(int)
    tasks: set[asyncio.Task[Any]] = set()

    def append(self: Any, room: Any, message: Any, key: str | None, completion: Any) -> None:
        async def store() -> None:
            newest = (await self.snapshot(room, None, 0)).position.seq
            given[room.id] = max(newest, given[room.id]) + 1
            complete_alone(completion, Appended(msgspec.structs.replace(message, seq=given[room.id])))
            await asyncio.sleep(0.5)
            stores(self, room, message, key, FutureCompletion())

        task = asyncio.create_task(store())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    DatabaseHistory.append = append  # type: ignore[method-assign]


def knows_no_keys() -> None:
    """A message that is sent again is another message."""
    from rooms.histories.database import DatabaseHistory
    from rooms.node.publish import MessageHandler

    stores = DatabaseHistory.append

    def append(self: Any, room: Any, message: Any, key: str | None, completion: Any) -> None:
        stores(self, room, message, None, completion)

    async def carry_out(self: Any, connection: Any, request: Any, room: Any, user: Any, used: Any) -> None:
        await self._carry_out(connection, request, room, user)

    DatabaseHistory.append = append  # type: ignore[method-assign]
    MessageHandler._carry_out_once = carry_out  # type: ignore[method-assign]


def checks_no_positions() -> None:
    """A hint that is lost with nothing after it is lost for good."""
    from rooms.node.recovery import Recovery

    async def check(self: Any) -> None:
        """As if nothing were ever missing."""

    Recovery.check = check  # type: ignore[method-assign]


def fetches_no_gaps() -> None:
    """What comes after something missing is told without it."""
    from rooms.node.recovery import Recovery

    def found(self: Any, group: str, until: int = 0) -> None:
        self._parts.hub.skip_gap(group)

    Recovery.found = found  # type: ignore[method-assign]


VARIANTS: dict[str, Callable[[], None]] = {
    variant.__name__: variant
    for variant in (acknowledges_before_the_commit, knows_no_keys, checks_no_positions, fetches_no_gaps)
}


class Variants(AppConfig):
    """Breaks what the environment asks for, as soon as everything has been loaded."""

    name = "tests.chaos"

    def ready(self) -> None:
        if chosen := os.environ.get("ROOMS_CHAOS_VARIANT"):
            VARIANTS[chosen]()
