"""One of several processes that write to one room at once: `manage.py shell` runs this file.

Each of its threads has its own event loop and history. The numbers that they get are printed as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading

from msgspec import Raw

from rooms.histories.database import DatabaseHistory
from rooms.node import config
from rooms.protocol import timestamps
from rooms.protocol.errors import Unavailable
from rooms.protocol.events import Message
from rooms.protocol.types import User
from tests.histories.messages import append_and_wait

THREADS = 4
# The number of messages that share a transaction; there are many transactions.
BATCH = 5


def write(writer: str, count: int, numbers: dict[str, list[int]]) -> None:
    """Send ``count`` messages; repeat one that is unavailable with the same key."""
    application = config.load_application("durable")
    assert application is not None
    room = config.load_room(application, "stress")
    assert room is not None

    async def send(history: DatabaseHistory, number: int) -> int:
        sender = User(name=writer, id=writer, guest=True)
        message = Message(
            room=room.name,
            event="message",
            data=Raw(b"%d" % number),
            sender=sender,
            seq=None,
            time=timestamps.now(),
        )
        while True:
            try:
                return (await append_and_wait(history, room, message, f"{number}")).message.seq or 0
            except Unavailable:
                continue

    async def send_all() -> list[int]:
        history = DatabaseHistory()
        sent: list[int] = []
        for start in range(0, count, BATCH):
            chunk = range(start, min(start + BATCH, count))
            sent += await asyncio.gather(*(send(history, number) for number in chunk))
        await history.close()
        return sent

    numbers[writer] = asyncio.run(send_all())


def main() -> None:
    numbers: dict[str, list[int]] = {}
    name, count = os.environ["ROOMS_TEST_WRITER"], int(os.environ["ROOMS_TEST_MESSAGES"])
    threads = [
        threading.Thread(target=write, args=(f"{name}-{number}", count, numbers)) for number in range(THREADS)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print(json.dumps(numbers))  # noqa: T201


main()
