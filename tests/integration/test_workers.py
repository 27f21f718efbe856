"""`manage.py runrooms --workers`: what clients notice when one of several workers ends, and when all do."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.integration.native import PATIENCE, Client, Visitors, make_application, unique
from tests.servers import BASE_DIR, Server, on_postgres, running

pytestmark = pytest.mark.database

once = pytest.mark.skipif(on_postgres(), reason="the same on every database: it runs on SQLite")

WORKERS = 2
# The system chooses a worker for each connection. So many are never all with the same one.
CROWD = 20


def start() -> Server:
    return Server.start("runrooms", options=("--workers", str(WORKERS)))


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so that only looking tells."""

    def look() -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)

    await asyncio.to_thread(look)


async def all_serve(server: Server) -> None:
    await until(lambda: len(server.workers) == WORKERS)


@pytest.fixture(scope="module")
def site() -> Iterator[Server]:
    """A site that several tests look at, and whose workers they kill."""
    server = start()
    with running(server):
        yield server


@pytest.fixture
def ending() -> Iterator[Server]:
    """A site that the test ends."""
    server = start()
    with running(server):
        yield server


@pytest.fixture
async def visitors(site: Server) -> AsyncIterator[Visitors]:
    """Visitors of the shared site, all of whose workers serve."""
    await all_serve(site)
    async with Visitors(site) as everyone:
        yield everyone


async def crowd(visitors: Visitors, room: str, application: str = "durable") -> list[Client]:
    """So many members of a room, on all workers."""
    clients = [await visitors.guest(application=application) for _ in range(CROWD)]
    for client in clients:
        await client.join(room)
    return clients


async def lost_and_kept(clients: list[Client]) -> tuple[list[Client], list[Client]]:
    """Those whose connections have broken, and those who notice nothing."""
    found = await asyncio.gather(*(client.ask("ping") for client in clients), return_exceptions=True)
    lost = [
        client for client, answer in zip(clients, found, strict=True) if isinstance(answer, ConnectionClosed)
    ]
    kept = [client for client in clients if client not in lost]
    assert all(isinstance(answer, dict | ConnectionClosed) for answer in found), found
    assert lost
    assert kept
    return lost, kept


# While it serves ----------------------------------------------------------------------------------------


async def test_clients_of_other_workers_notice_nothing_of_one_that_is_killed(
    site: Server, visitors: Visitors
) -> None:
    room = unique("room")
    clients = await crowd(visitors, room)
    await clients[0].say(room, "before")
    position = (await clients[0].join(room))["position"]
    old = site.workers[0]
    os.kill(old, signal.SIGKILL)
    lost, kept = await lost_and_kept(clients)
    await kept[0].say(room, "meanwhile")
    back = [await visitors.again(client) for client in lost]
    for client in back:
        joined = await client.join(room, since=position)
        assert joined["recovered"] is True
        assert [message["data"] for message in joined["messages"]] == ["meanwhile"]
    await all_serve(site)
    assert old not in site.workers
    # The new one hears what is said at the other, and is heard.
    newcomers = await crowd(visitors, room)
    for speaker in newcomers:
        await speaker.say(room, speaker.user["name"])
    for client in [*kept, *back, *newcomers]:
        missing = {speaker.user["name"] for speaker in newcomers}
        while missing:
            missing.discard((await client.push("message"))["data"])


async def test_who_was_at_a_worker_that_is_killed_is_soon_told_to_be_gone(
    site: Server, visitors: Visitors
) -> None:
    """After the grace period, and long before its lease would end: nobody would wait for that here."""
    application, room = make_application(site, leave_grace=1, rooms_on_demand=True), unique("room")
    clients = await crowd(visitors, room, application)
    os.kill(site.workers[0], signal.SIGKILL)
    lost, kept = await lost_and_kept(clients)
    gone = [(await kept[0].push("left"))["user"] for _ in lost]
    assert sorted(user["name"] for user in gone) == sorted(client.user["name"] for client in lost)


@once
def test_a_second_site_on_the_same_port_is_refused(site: Server) -> None:
    address = f"127.0.0.1:{site.port}"
    again = subprocess.run(
        [sys.executable, "manage.py", "runrooms", "--workers", "2", "--listen", address],
        capture_output=True,
        text=True,
        cwd=BASE_DIR,
        env=site.environment,
        timeout=2 * PATIENCE,
    )
    assert again.returncode == 1
    assert f"Cannot listen on {address}: Address already in use." in again.stderr
    assert "Traceback" not in again.stderr


class Speaker:
    """Says one numbered thing after the other, each until it is acknowledged, over as many connections as
    that takes."""

    def __init__(self, visitors: Visitors, application: str, room: str, name: str) -> None:
        self.acknowledged: dict[int, str] = {}
        self._visitors, self._application, self._room, self._name = visitors, application, room, name
        self.connections = 0

    async def speak(self, enough: asyncio.Event) -> None:
        client = await self._visitors.guest(application=self._application)
        for number in itertools.count():
            said = f"{self._name} {number}"
            while True:
                try:
                    if not self.connections or client.socket.close_code is not None:
                        client = await self._visitors.again(client, self._application)
                        await client.join(self._room)
                        self.connections += 1
                    reply = await client.say(self._room, said, key=said, echo=False)
                    break
                except (ConnectionClosed, InvalidMessage, OSError):
                    continue
            self.acknowledged[reply["seq"]] = said
            if enough.is_set():
                return


def stored(server: Server, room: str) -> dict[int, str]:
    """What the database has of a room."""
    script = (
        "import json\n"
        "from rooms.models import Message\n"
        f"rows = Message.objects.filter(room__name={room!r}).order_by('seq')\n"
        "print(json.dumps([[row.seq, json.loads(row.data)] for row in rows]))"
    )
    rows = json.loads(server.manage("shell", "-v", "0", "-c", script).splitlines()[-1])
    assert [seq for seq, _ in rows] == [*range(1, len(rows) + 1)]
    return dict(rows)


async def test_a_deploy_loses_nothing_that_was_acknowledged(site: Server, visitors: Visitors) -> None:
    application = make_application(site, rooms_on_demand=True, history_size=1_000_000, request_rate=0)
    room, enough, old = unique("room"), asyncio.Event(), site.workers
    speakers = [Speaker(visitors, application, room, name) for name in ("ann", "ben", "eve", "dan")]
    speaking = [asyncio.create_task(each.speak(enough)) for each in speakers]
    await until(lambda: all(each.acknowledged for each in speakers))
    os.kill(site.pid, signal.SIGHUP)
    await until(lambda: "Every worker has been replaced." in site.log.read_text())
    assert not set(old) & set(site.workers)
    enough.set()
    await asyncio.gather(*speaking)
    assert sum(each.connections for each in speakers) > len(speakers)
    kept = await asyncio.to_thread(stored, site, room)
    said = {seq: text for each in speakers for seq, text in each.acknowledged.items()}
    assert said == kept
    assert len(set(kept.values())) == len(kept)


# Its end ------------------------------------------------------------------------------------------------


def assert_gone(server: Server, workers: list[int]) -> None:
    """Neither its workers are there nor anybody at its port."""
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    socket.create_server(("127.0.0.1", server.port)).close()


def farewell(client: Client) -> dict[str, Any]:
    """The last word that it was told."""
    return client.log[-1]


@once
@pytest.mark.parametrize("everybody", [False, True], ids=["the supervisor", "every process"])
async def test_with_a_signal_all_clients_are_told_and_may_come_back_soon(
    ending: Server, everybody: bool
) -> None:
    """To every process is how service managers send it unless they are told otherwise."""
    await all_serve(ending)
    workers, process = ending.workers, ending.process
    assert process is not None
    async with Visitors(ending) as visitors:
        clients = await crowd(visitors, unique("room"))
        for pid in (*(workers if everybody else ()), ending.pid):
            os.kill(pid, signal.SIGTERM)
        assert await asyncio.gather(*(client.closed() for client in clients)) == [4000] * CROWD
        assert all(0 <= farewell(client)["retry_in"] <= 5 for client in clients)
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0
    assert_gone(ending, workers)
    assert "Another one is started" not in ending.log.read_text()
    assert "Traceback" not in ending.log.read_text()


@once
async def test_workers_take_leave_too_where_their_supervisor_is_killed(ending: Server) -> None:
    await all_serve(ending)
    workers = ending.workers
    async with Visitors(ending) as visitors:
        clients = await crowd(visitors, unique("room"))
        await asyncio.to_thread(ending.kill)
        assert await asyncio.gather(*(client.closed() for client in clients)) == [4000] * CROWD
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert_gone(ending, workers)
