"""The site under test: its database, Redis or none, workers, and stored messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psycopg

from tests import services
from tests.chaos.logs import Mark, Stored
from tests.servers import Server, folder, fresh_database, manage, on_postgres, site_environment

APPLICATION = "durable"


@dataclass(frozen=True, slots=True)
class Backends:
    """The database of a site, and whether it has a Redis.

    Without Redis its processes exchange messages over PostgreSQL, or on one machine over Unix sockets.
    """

    database: Literal["sqlite", "postgres"]
    redis: bool


BACKENDS = {
    "sqlite": Backends("sqlite", redis=True),
    "sqlite-alone": Backends("sqlite", redis=False),
    "postgres": Backends("postgres", redis=True),
    "postgres-alone": Backends("postgres", redis=False),
}


class Site:
    """Several workers of one site: separate servers, or the workers of one `runrooms`.

    All methods are called in the driver's event loop.
    """

    def __init__(
        self, backends: Backends, workers: int, *, together: bool = False, variant: str = ""
    ) -> None:
        self.backends = backends
        self.together = together
        self.workers = workers
        self.folder = folder() / f"chaos-{os.urandom(4).hex()}"
        self.folder.mkdir()
        self.faults = self.folder / "faults.json"
        self.redis = services.redis("chaos") if backends.redis else None
        self.environment = {
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "ROOMS_CHAOS_FAULTS": str(self.faults),
            "ROOMS_CHAOS_VARIANT": variant,
            "LOG_LEVEL": "WARNING",
        }
        if not together:
            self.environment["ROOMS_WORKERS"] = str(workers)
        self.database_url = ""
        self.servers: list[Server] = []

    async def start(self) -> None:
        """Create the database, empty Redis, and start all workers."""
        if self.redis is not None:
            self.redis.flush()
        self.database_url = await asyncio.to_thread(new_database, self.backends)
        starting = [asyncio.to_thread(self._server) for _ in range(1 if self.together else self.workers)]
        self.servers = list(await asyncio.gather(*starting))

    def _server(self) -> Server:
        redis_url = self.redis.url if self.redis else None
        if self.together:
            options = ("--workers", str(self.workers))
            return Server.start("runrooms", self.database_url, redis_url, self.environment, options=options)
        return Server.start("uvicorn", self.database_url, redis_url, self.environment)

    def stop(self) -> None:
        """Kill all workers at once."""
        self.faults.unlink(missing_ok=True)
        workers = self.pids() if self.together and self.servers else []
        for server in self.servers:
            server.kill()
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def addresses(self) -> list[str]:
        """Addresses for clients."""
        return [f"{server.ws}/ws/rooms/{APPLICATION}/" for server in self.servers]

    @property
    def has_own_redis(self) -> bool:
        """Whether its Redis may be killed, because the environment does not provide it."""
        return self.redis is not None and self.redis.process is not None

    # Workers -----------------------------------------------------------------------------------------

    def end_worker(self, chance: random.Random, with_signal: signal.Signals) -> Server | None:
        """Send a worker the signal; return the server to be started again, if there is no supervisor."""
        if self.together:
            if pids := self.pids():
                os.kill(chance.choice(pids), with_signal)
            return None
        server = chance.choice(self.servers)
        os.kill(server.pid, with_signal)
        return server

    def pids(self) -> list[int]:
        """Process ids of the supervisor's workers."""
        pid = self.servers[0].pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def all_workers_listen(self) -> bool:
        """Whether all workers listen."""
        ports = {server.port for server in self.servers}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = [row for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) in ports]
        return len(listening) == self.workers

    def roll(self) -> None:
        """Replace all workers, one after the other."""
        os.kill(self.servers[0].pid, signal.SIGHUP)

    # The database ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def database(self) -> Iterator[Any]:
        """Open a further connection to the database."""
        if self.backends.database == "postgres":
            with psycopg.connect(self.database_url, autocommit=True) as connection:
                yield connection
            return
        path = urlsplit(self.database_url).path
        # With explicit transactions, and for any thread.
        with contextlib.closing(
            sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        ) as connection:
            yield connection

    def stored(self, rooms: Sequence[str]) -> tuple[list[Stored], dict[str, int]]:
        """Return the stored messages of these rooms, and their counters."""
        of_application = (
            "JOIN rooms_room r ON r.id = {0}.room_id JOIN rooms_application a ON a.id = r.application_id "
            f"WHERE a.name = '{APPLICATION}'"
        )
        with self.database() as connection:
            rows = connection.execute(
                "SELECT r.name, m.seq, m.sender_name, m.data FROM rooms_message m "
                + of_application.format("m")
            ).fetchall()
            counters = connection.execute(
                f"SELECT r.name, s.seq FROM rooms_sequence s {of_application.format('s')}"
            ).fetchall()
        stored = [
            Stored(room, seq, *parse(sender, json.loads(data)))
            for room, seq, sender, data in rows
            if room in rooms
        ]
        return stored, {room: seq for room, seq in counters if room in rooms}


def parse(sender: str, data: Any) -> tuple[Mark, str]:
    """Return the mark and the text of a message, with the sender as the server names it."""
    return Mark(sender, data["number"]), data["text"]


def message_data(mark: Mark, text: str) -> dict[str, Any]:
    """Return the data of a message."""
    return {"number": mark.number, "text": text}


def new_database(backends: Backends) -> str:
    """Create a database with the demo data and the applications without limits."""
    if (backends.database == "postgres") == on_postgres():
        return fresh_database()
    if backends.database == "postgres":
        url = services.postgres().create()
    else:
        url = f"sqlite:///{folder() / f'chaos-{os.urandom(8).hex()}.sqlite3'}"
    manage(site_environment(url), "rooms_demo", "--no-serve", "--bench")
    return url
