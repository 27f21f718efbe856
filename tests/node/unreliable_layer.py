"""A channel layer in memory that loses messages, fails or hangs as a test demands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from channels.layers import InMemoryChannelLayer


class UnreliableLayer(InMemoryChannelLayer):
    """``loses`` chooses the messages that never arrive.

    While it is ``broken`` every call fails; while it is ``hung`` none ends. ``sent`` has the group and the
    frames of each message that was handed over.
    """

    def __init__(self) -> None:
        super().__init__(capacity=10_000)
        self.loses: Callable[[str, dict[str, Any]], bool] = lambda group, message: False
        self.broken = self.hung = False
        self.sent: list[tuple[str, list[bytes]]] = []

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await self._ensure_up()
        self.sent.append((group, message["frames"]))
        if not self.loses(group, message):
            await super().group_send(group, message)

    async def group_add(self, group: str, channel: str) -> None:
        await self._ensure_up()
        await super().group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._ensure_up()
        await super().group_discard(group, channel)

    async def _ensure_up(self) -> None:
        if self.hung:
            await asyncio.Event().wait()
        if self.broken:
            raise ConnectionError("the layer is down")
