"""Taking leave of the clients when the server ends: each is told so, and may come back elsewhere.

They are not sent away all at once, lest they come back all at once: each is closed at a random moment of
its own, and told a random pause after which to come back.
"""

from __future__ import annotations

import asyncio
import random
import time

from rooms.node.node import Node
from rooms.protocol.errors import CloseCode

# Closes are spread over so much for each connection, and over the second of these at most.
SPREAD_EACH_SECONDS = 0.01
SPREAD_SECONDS = 5.0
# A client is told to stay away for a random time up to the spread, or up to this where few are spread.
SHORTEST_RETRY_SECONDS = 1.0
# What is being carried out at a connection's moment has so long to end.
FINISH_SECONDS = 5.0
# And clients have so long to hear the last word.
HEAR_SECONDS = 3.0
LOOK_SECONDS = 0.05


async def close_connections(node: Node) -> None:
    """Close every connection with its last word, those with a request under way after its answer. Returns
    when all are gone, or have had their time."""
    begin = time.monotonic()
    spread = min(SPREAD_EACH_SECONDS * len(node.connections), SPREAD_SECONDS)
    moments = {connection: begin + random.uniform(0, spread) for connection in node.connections}
    longest = max(spread, SHORTEST_RETRY_SECONDS)
    while node.connections and time.monotonic() < begin + spread + FINISH_SECONDS + HEAR_SECONDS:
        now = time.monotonic()
        for connection in list(node.connections):
            # One that came over its handshake only now is sent away at once.
            moment = moments.get(connection, begin)
            if now >= moment and (not connection.is_busy() or now > moment + FINISH_SECONDS):
                retry = round(random.uniform(0, longest), 3)
                connection.close(CloseCode.SERVER_RESTART, "The server restarts.", retry_in=retry)
        await asyncio.sleep(LOOK_SECONDS)
