"""Taking leave of the clients when the server ends: each is told so, and may come back elsewhere."""

from __future__ import annotations

import asyncio
import time

from rooms.engine.engine import Engine
from rooms.errors import CloseCode

# What is being carried out has so long to end.
FINISH_SECONDS = 5.0
# After the last word a client that does not read is let go of by the heartbeat, at a tick after 5 s.
HEAR_SECONDS = 6.5
LOOK_SECONDS = 0.05


async def close_connections(engine: Engine) -> None:
    """Close every connection with its last word, those with a request under way after its answer. Returns
    when all are gone, or have had their time."""
    begin = time.monotonic()
    while engine.connections and time.monotonic() < begin + FINISH_SECONDS + HEAR_SECONDS:
        late = time.monotonic() > begin + FINISH_SECONDS
        for connection in list(engine.connections):
            if late or not connection.is_busy():
                connection.close(CloseCode.SERVER_RESTART, "The server restarts.")
        await asyncio.sleep(LOOK_SECONDS)
