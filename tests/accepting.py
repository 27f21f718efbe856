"""Ending a listener of a test's own while somebody may just be calling it."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import Server


async def accept_no_more(server: Server) -> None:
    """Afterwards `server` knows everybody whom it has accepted. asyncio forgets who is accepted while its
    server is closed: such a socket stays open, and some later test is told of it."""
    loop = asyncio.get_running_loop()
    for each in server.sockets:
        loop.remove_reader(each)
    for _ in range(5):
        await asyncio.sleep(0)
