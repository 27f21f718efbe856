"""Live servers for black-box tests: a real ASGI server in its own process.

    server = Server.start("uvicorn")
    server.url, server.ws          # http://127.0.0.1:… and ws://127.0.0.1:…
    server.kill(); server.restart()
    server.manage("shell", "-c", "…")

Each server has a fresh database with the demo data, unless it gets the database of another server:
two servers with one database and one Redis are one site with two processes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit
from uuid import uuid4

from tests import services

BASE_DIR = Path(__file__).resolve().parent.parent
#: Seconds to wait for a server that starts, or that shuts down, before the test fails.
START_SECONDS = 120
STOP_SECONDS = 60

Kind = Literal["daphne", "uvicorn", "runrooms"]

#: The options of `runrooms` for uvicorn, except its own WebSocket class.
WEBSOCKET_OPTIONS = ("--ws", "websockets-sansio", "--ws-per-message-deflate", "false")

#: The variables that the site reads: a server gets only those that its test sets.
SITE_VARIABLES = frozenset(
    {
        *("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS"),
        *("HTTPS", "HSTS_SECONDS", "BEHIND_PROXY", "STATIC_ROOT", "LOG_LEVEL", "ROOMS_WORKERS"),
    }
)


class Server:
    """One server process, its database and its log."""

    running: ClassVar[list[Server]] = []

    def __init__(
        self,
        kind: Kind,
        database_url: str,
        redis_url: str | None,
        environment: Mapping[str, str],
        options: Sequence[str],
    ) -> None:
        self.kind = kind
        self.options = options
        self.database_url = database_url
        self.redis_url = redis_url
        self.environment = site_environment(database_url, redis_url, environment)
        self.port = services.free_port()
        self.log = folder() / f"{kind}-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        kind: Kind = "uvicorn",
        database_url: str | None = None,
        redis_url: str | None = None,
        environment: Mapping[str, str] | None = None,
        bench: bool = True,
        options: Sequence[str] = (),
    ) -> Self:
        """Start a server and wait until it answers.

        `bench` adds the applications without limits to the demo data; `options` extend the command line.
        """
        server = cls(kind, database_url or fresh_database(bench), redis_url, environment or {}, options)
        server.restart()
        return server

    @property
    def url(self) -> str:
        """The address for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """The address for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        if self.process is None:
            raise RuntimeError(f"Expected a running server on port {self.port}, got none.")
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers that serve, the oldest first."""
        served = re.findall(r"Worker (\d+) serves\.", self.log.read_text())
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in served if pid in children]

    def restart(self) -> None:
        """Start it on the same port and database, after a stop if it runs."""
        self.stop()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                cwd=BASE_DIR,
                env=self.environment,
                start_new_session=True,
            )
        Server.running.append(self)
        for _ in range(START_SECONDS * 20):
            # An answer alone may come from another process that uses the port.
            if self.process.poll() is None and self.answers():
                return
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
        self.kill()
        raise AssertionError(f"{self.kind} did not start:\n{self.tail()}")

    def command(self) -> list[str]:
        """The command line of the server."""
        port, application = str(self.port), "roomsite.asgi:application"
        commands = {
            "daphne": ["-m", "daphne", "-b", "127.0.0.1", "-p", port, application],
            "uvicorn": [
                "-m",
                "uvicorn",
                "--host",
                "127.0.0.1",
                "--port",
                port,
                *WEBSOCKET_OPTIONS,
                application,
            ],
            "runrooms": ["manage.py", "runrooms", "--listen", f"127.0.0.1:{port}"],
        }
        return [sys.executable, *commands[self.kind], *self.options]

    def answers(self) -> bool:
        """Whether it answers a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            connection.request("GET", "/")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True

    def stop(self) -> None:
        """Stop it with SIGTERM, as a deployment does."""
        self.end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop it with SIGKILL, like a crash."""
        self.end(signal.SIGKILL)

    def end(self, with_signal: signal.Signals) -> None:
        """Send the signal and wait for the exit."""
        if self.process is None:
            return
        self.process.send_signal(with_signal)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        Server.running.remove(self)

    def tail(self, characters: int = 6000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:]

    def manage(self, *arguments: str) -> str:
        """Run a management command on its database and Redis; returns the output."""
        return manage(self.environment, *arguments)


def site_environment(
    database_url: str, redis_url: str | None = None, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of a process of the site, without our SITE_VARIABLES."""
    environment = {name: value for name, value in os.environ.items() if name not in SITE_VARIABLES}
    environment |= {"DATABASE_URL": database_url, "DEBUG": "1", "PYTHONUNBUFFERED": "1"}
    # Temporary files that it leaves are removed at the end of the run.
    environment["TMPDIR"] = str(folder())
    if redis_url is not None:
        environment["REDIS_URL"] = redis_url
    return environment | dict(more or {})


def manage(environment: Mapping[str, str], *arguments: str) -> str:
    """Run a management command in its own process; returns the output."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=BASE_DIR, env=environment, timeout=START_SECONDS
    )
    if done.returncode:
        raise AssertionError(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@functools.cache
def folder() -> Path:
    """The directory of databases and logs; removed at the end of the run."""
    made = Path(tempfile.mkdtemp(prefix="rooms-test-servers-"))
    atexit.register(end_all)
    return made


def end_all() -> None:
    """Kill all running servers and remove databases and logs."""
    for server in list(Server.running):
        server.kill()
    shutil.rmtree(folder(), ignore_errors=True)


def on_postgres() -> bool:
    """Whether the tests run on PostgreSQL."""
    wanted = os.environ.get("ROOMS_TEST_DATABASE") or "sqlite"
    if wanted not in {"sqlite", "postgres"}:
        raise ValueError(f"Expected ROOMS_TEST_DATABASE to be sqlite or postgres, got {wanted!r}.")
    return wanted == "postgres"


@functools.cache
def prepared_database(bench: bool) -> str:
    """A database with the demo data, created once; each server gets a copy."""
    url = (
        services.postgres().create()
        if on_postgres()
        else f"sqlite:///{folder() / f'prepared-{bench}.sqlite3'}"
    )
    manage(site_environment(url), "rooms_demo", "--no-serve", *(["--bench"] if bench else []))
    return url


def fresh_database(bench: bool = True) -> str:
    """The URL of a new database with the demo data."""
    prepared = prepared_database(bench)
    if on_postgres():
        return services.postgres().create(template=prepared)
    path = folder() / f"{uuid4().hex}.sqlite3"
    # SQLite's own backup: the latest pages may still be in the write-ahead log.
    with (
        contextlib.closing(sqlite3.connect(urlsplit(prepared).path)) as source,
        contextlib.closing(sqlite3.connect(path)) as copy,
    ):
        source.backup(copy)
    return f"sqlite:///{path}"


# pytest keeps one value of a fixture with parameters: each module would restart each kind.
@functools.cache
def shared(kind: Kind) -> Server:
    """The shared server of this kind, stopped at the end of the run."""
    return Server.start(kind)


@contextlib.contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Stop these servers at the end of the block."""
    try:
        yield
    finally:
        for server in servers:
            server.stop()


#: The kinds of server for the black-box tests. They differ in sockets and frames, not in what they do
#: with the database: on PostgreSQL one kind is enough.
KINDS: tuple[Kind, ...] = ("runrooms",) if on_postgres() else ("daphne", "uvicorn", "runrooms")
