"""One process of several that write to one room at once: `manage.py shell` carries this file out.

Each of its threads has an event loop and a history of its own. What they were answered is printed as JSON.
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
from tests.histories.said import append_and_wait

THREADS = 4
# So many share a transaction, and there are many transactions.
TOGETHER = 5


def write(writer: str, count: int, told: dict[str, list[int]]) -> None:
    """Say so many numbers; one that is refused for the moment again with the same key."""
    application = config.load_application("durable")
    assert application is not None
    room = config.load_room(application, "stress")
    assert room is not None

    async def say(history: DatabaseHistory, number: int) -> int:
        sender = User(name=writer, id=writer, guest=True)
        said = Message(
            room=room.name,
            event="message",
            data=Raw(b"%d" % number),
            sender=sender,
            seq=None,
            time=timestamps.now(),
        )
        while True:
            try:
                return (await append_and_wait(history, room, said, f"{number}")).message.seq or 0
            except Unavailable:
                continue

    async def say_all() -> list[int]:
        history = DatabaseHistory()
        answers: list[int] = []
        for start in range(0, count, TOGETHER):
            numbers = range(start, min(start + TOGETHER, count))
            answers += await asyncio.gather(*(say(history, number) for number in numbers))
        await history.close()
        return answers

    told[writer] = asyncio.run(say_all())


def main() -> None:
    told: dict[str, list[int]] = {}
    name, count = os.environ["ROOMS_TEST_WRITER"], int(os.environ["ROOMS_TEST_MESSAGES"])
    threads = [
        threading.Thread(target=write, args=(f"{name}-{number}", count, told)) for number in range(THREADS)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print(json.dumps(told))  # noqa: T201


main()
