"""Servers that each break a promise, to test that the oracle finds it.

A variant replaces a method in the server. The environment variable ROOMS_CHAOS_VARIANT selects it; ``rooms/``
has no code for it.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from django.apps import AppConfig


def acknowledges_before_the_commit() -> None:
    """Acknowledges each message at once and stores it later."""
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
    """Stores a message that is sent again as another message."""
    from rooms.histories.database import DatabaseHistory
    from rooms.node.publish import MessageHandler

    stores = DatabaseHistory.append

    def append(self: Any, room: Any, message: Any, key: str | None, completion: Any) -> None:
        stores(self, room, message, None, completion)

    async def execute(self: Any, connection: Any, command: Any, room: Any, user: Any, key: Any) -> None:
        await self._execute(connection, command, room, user)

    DatabaseHistory.append = append  # type: ignore[method-assign]
    MessageHandler._execute_once = execute  # type: ignore[method-assign]


def checks_no_positions() -> None:
    """Does not find a lost message that no other message follows."""
    from rooms.node.recovery import Recovery

    async def check(self: Any) -> None:
        """Find nothing."""

    Recovery.check = check  # type: ignore[method-assign]


def fetches_no_gaps() -> None:
    """Delivers the messages after a gap without filling it."""
    from rooms.node.recovery import Recovery

    def fill(self: Any, room: Any, until: int = 0) -> None:
        if room.earliest_pending is not None:
            room.advance_to(room.earliest_pending - 1)

    Recovery.fill = fill  # type: ignore[method-assign]


VARIANTS: dict[str, Callable[[], None]] = {
    variant.__name__: variant
    for variant in (acknowledges_before_the_commit, knows_no_keys, checks_no_positions, fetches_no_gaps)
}


class Variants(AppConfig):
    """Applies the variant of the environment when all apps are loaded."""

    name = "tests.chaos"

    def ready(self) -> None:
        if chosen := os.environ.get("ROOMS_CHAOS_VARIANT"):
            VARIANTS[chosen]()
