"""Closes a test's WebSocket server while clients may be connecting to it."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import Server


async def accept_no_more(server: Server) -> None:
    """Stop accepting; afterwards `server` knows every accepted connection.

    asyncio loses a connection that is accepted while its server closes: its socket stays open, and a
    later test fails because of it.
    """
    loop = asyncio.get_running_loop()
    for each in server.sockets:
        loop.remove_reader(each)
    for _ in range(5):
        await asyncio.sleep(0)
