"""A channel layer in memory that loses, breaks or holds up what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from channels.layers import InMemoryChannelLayer


class Wire(InMemoryChannelLayer):
    """``loses`` chooses messages that never arrive; while ``broken`` every call fails, while
    ``hung`` none ever ends. ``sent`` is what was handed over: group and frames."""

    def __init__(self) -> None:
        super().__init__(capacity=10_000)
        self.loses: Callable[[str, dict[str, Any]], bool] = lambda group, message: False
        self.broken = self.hung = False
        self.sent: list[tuple[str, list[bytes]]] = []

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await self._works()
        self.sent.append((group, message["frames"]))
        if not self.loses(group, message):
            await super().group_send(group, message)

    async def group_add(self, group: str, channel: str) -> None:
        await self._works()
        await super().group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._works()
        await super().group_discard(group, channel)

    async def _works(self) -> None:
        if self.hung:
            await asyncio.Event().wait()
        if self.broken:
            raise ConnectionError("the layer is down")
