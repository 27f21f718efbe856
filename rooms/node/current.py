"""The node of this process, where it serves sockets.

It is kept here for code that must not import the node, such as ``api.py`` in a WSGI worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from rooms.node.control_messages import AnyControlMessage
from rooms.protocol.events import Message
from rooms.protocol.types import User


class ServerApi(Protocol):
    """What server code can ask for.

    The services of the node and the standalone publisher implement it.
    """

    async def publish(
        self,
        application: str,
        room: str,
        data: Any,
        *,
        event: str,
        to: str | Sequence[str] | None,
        state: bool,
        volatile: bool,
    ) -> Message: ...

    async def members(self, application: str, room: str) -> list[User]: ...

    async def history(self, application: str, room: str, limit: int) -> list[Message]: ...

    async def send_control(self, message: AnyControlMessage) -> None: ...


class ServingNode(Protocol):
    """The node, as server code sees it."""

    loop: asyncio.AbstractEventLoop

    @property
    def services(self) -> ServerApi: ...


node: ServingNode | None = None
