"""`runrooms --workers`: what clients see when one worker ends, and when all end."""

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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.changed_site import SHORT_LEASES, changed_site
from tests.integration.native import Client, Visitors, make_application, unique
from tests.servers import BASE_DIR, START_SECONDS, STOP_SECONDS, Server, on_postgres, running

pytestmark = pytest.mark.database

sqlite_only = pytest.mark.skipif(on_postgres(), reason="independent of the database: runs on SQLite")

WORKERS = 2
#: The system assigns each connection to a worker. This many never have all the same worker.
CONNECTIONS = 20


def start(environment: Mapping[str, str] | None = None) -> Server:
    return Server.start("runrooms", environment=environment, options=("--workers", str(WORKERS)))


async def until(condition: Callable[[], object]) -> None:
    """Poll until the condition is true."""

    def poll() -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"not within {START_SECONDS} seconds"
            time.sleep(0.05)

    await asyncio.to_thread(poll)


async def all_serve(server: Server) -> None:
    await until(lambda: len(server.workers) == WORKERS)


@pytest.fixture(scope="module")
def site() -> Iterator[Server]:
    """A site that several tests share, and whose workers they kill."""
    server = start()
    with running(server):
        yield server


@pytest.fixture
def stopping() -> Iterator[Server]:
    """A site that the test stops."""
    server = start()
    with running(server):
        yield server


@pytest.fixture
async def visitors(site: Server) -> AsyncIterator[Visitors]:
    """Visitors of the shared site, all of whose workers serve."""
    await all_serve(site)
    async with Visitors(site) as visitors:
        yield visitors


async def join_all_workers(visitors: Visitors, room: str, application: str = "durable") -> list[Client]:
    """Return members of a room with connections to all workers."""
    clients = [await visitors.guest(application=application) for _ in range(CONNECTIONS)]
    for client in clients:
        await client.join(room)
    return clients


async def lost_and_kept(clients: list[Client]) -> tuple[list[Client], list[Client]]:
    """Return the clients whose connections are lost, and the others."""
    answers = await asyncio.gather(*(client.ask("ping") for client in clients), return_exceptions=True)
    lost = [
        client
        for client, answer in zip(clients, answers, strict=True)
        if isinstance(answer, ConnectionClosed)
    ]
    kept = [client for client in clients if client not in lost]
    assert all(isinstance(answer, dict | ConnectionClosed) for answer in answers), answers
    assert lost
    assert kept
    return lost, kept


# While it serves ----------------------------------------------------------------------------------------


async def test_clients_of_other_workers_stay_connected_when_a_worker_is_killed(
    site: Server, visitors: Visitors
) -> None:
    room = unique("room")
    clients = await join_all_workers(visitors, room)
    await clients[0].send_message(room, "before")
    position = (await clients[0].join(room))["position"]
    old = site.workers[0]
    os.kill(old, signal.SIGKILL)
    lost, kept = await lost_and_kept(clients)
    await kept[0].send_message(room, "meanwhile")
    back = [await visitors.again(client) for client in lost]
    for client in back:
        joined = await client.join(room, since=position)
        assert joined["recovered"] is True
        assert [message["data"] for message in joined["messages"]] == ["meanwhile"]
    await all_serve(site)
    assert old not in site.workers
    # Messages go both ways between the new worker and the other.
    newcomers = await join_all_workers(visitors, room)
    for sender in newcomers:
        await sender.send_message(room, sender.user["name"])
    for client in [*kept, *back, *newcomers]:
        missing = {sender.user["name"] for sender in newcomers}
        while missing:
            missing.discard((await client.push("message"))["data"])


async def test_users_of_a_killed_worker_leave_after_the_grace_period() -> None:
    """The supervisor reports the death: the lease of 50 seconds would end much later."""
    site = await asyncio.to_thread(start, changed_site(SHORT_LEASES, LEAVE_GRACE=1))
    with running(site):
        await all_serve(site)
        async with Visitors(site) as visitors:
            clients = await join_all_workers(visitors, unique("room"))
            os.kill(site.workers[0], signal.SIGKILL)
            lost, kept = await lost_and_kept(clients)
            left = [(await kept[0].push("left"))["user"] for _ in lost]
    assert sorted(user["name"] for user in left) == sorted(client.user["name"] for client in lost)


@sqlite_only
def test_second_site_on_the_same_port_is_refused(site: Server) -> None:
    address = f"127.0.0.1:{site.port}"
    again = subprocess.run(
        [sys.executable, "manage.py", "runrooms", "--workers", "2", "--listen", address],
        capture_output=True,
        text=True,
        cwd=BASE_DIR,
        env=site.environment,
        timeout=START_SECONDS,
    )
    assert again.returncode == 1
    assert f"Cannot listen on {address}: Address already in use." in again.stderr
    assert "Traceback" not in again.stderr


class Sender:
    """Sends numbered messages, each until it is acknowledged, and reconnects."""

    def __init__(self, visitors: Visitors, application: str, room: str, name: str) -> None:
        self.acknowledged: dict[int, str] = {}
        self._visitors, self._application, self._room, self._name = visitors, application, room, name
        self.connections = 0

    async def send(self, stop: asyncio.Event) -> None:
        client = await self._visitors.guest(application=self._application)
        for number in itertools.count():
            text = f"{self._name} {number}"
            while True:
                try:
                    if not self.connections or client.socket.close_code is not None:
                        client = await self._visitors.again(client, self._application)
                        await client.join(self._room)
                        self.connections += 1
                    reply = await client.send_message(self._room, text, key=text, echo=False)
                    break
                except (ConnectionClosed, InvalidMessage, OSError):
                    continue
            self.acknowledged[reply["seq"]] = text
            if stop.is_set():
                return


def stored(server: Server, room: str) -> dict[int, str]:
    """Return the messages of a room in the database."""
    script = (
        "import json\n"
        "from rooms.models import Message\n"
        f"rows = Message.objects.filter(room__name={room!r}).order_by('seq')\n"
        "print(json.dumps([[row.seq, json.loads(row.data)] for row in rows]))"
    )
    rows = json.loads(server.manage("shell", "-v", "0", "-c", script).splitlines()[-1])
    assert [seq for seq, _ in rows] == [*range(1, len(rows) + 1)]
    return dict(rows)


async def test_rolling_restart_loses_no_acknowledged_message(site: Server, visitors: Visitors) -> None:
    application = make_application(site, rooms_on_demand=True, history_size=1_000_000, request_rate=0)
    room, stop, old = unique("room"), asyncio.Event(), site.workers
    senders = [Sender(visitors, application, room, name) for name in ("ann", "ben", "eve", "dan")]
    sending = [asyncio.create_task(each.send(stop)) for each in senders]
    await until(lambda: all(each.acknowledged for each in senders))
    os.kill(site.pid, signal.SIGHUP)
    await until(lambda: "All workers have been replaced." in site.log.read_text())
    assert not set(old) & set(site.workers)
    stop.set()
    await asyncio.gather(*sending)
    assert sum(each.connections for each in senders) > len(senders)
    kept = await asyncio.to_thread(stored, site, room)
    acknowledged = {seq: text for each in senders for seq, text in each.acknowledged.items()}
    assert acknowledged == kept
    assert len(set(kept.values())) == len(kept)


# Shutdown ---------------------------------------------------------------------------------------------


def assert_gone(server: Server, workers: list[int]) -> None:
    """No worker runs, and the port is free."""
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    socket.create_server(("127.0.0.1", server.port)).close()


@sqlite_only
@pytest.mark.parametrize("every_process", [False, True], ids=["the supervisor", "every process"])
async def test_sigterm_closes_all_connections_with_a_retry_delay(
    stopping: Server, every_process: bool
) -> None:
    """Service managers send it to every process unless configured otherwise."""
    await all_serve(stopping)
    workers, process = stopping.workers, stopping.process
    assert process is not None
    async with Visitors(stopping) as visitors:
        clients = await join_all_workers(visitors, unique("room"))
        for pid in (*(workers if every_process else ()), stopping.pid):
            os.kill(pid, signal.SIGTERM)
        assert await asyncio.gather(*(client.closed() for client in clients)) == [4000] * CONNECTIONS
        assert all(0 <= client.log[-1]["retry_in"] <= 5 for client in clients)
        assert await asyncio.to_thread(process.wait, STOP_SECONDS) == 0
    assert_gone(stopping, workers)
    assert "A replacement is started" not in stopping.log.read_text()
    assert "Traceback" not in stopping.log.read_text()


@sqlite_only
async def test_workers_close_their_connections_when_the_supervisor_is_killed(stopping: Server) -> None:
    await all_serve(stopping)
    workers = stopping.workers
    async with Visitors(stopping) as visitors:
        clients = await join_all_workers(visitors, unique("room"))
        await asyncio.to_thread(stopping.kill)
        assert await asyncio.gather(*(client.closed() for client in clients)) == [4000] * CONNECTIONS
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert_gone(stopping, workers)
