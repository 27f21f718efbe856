"""Starts and stops the servers of a run.

Each measurement has a new process and, if needed, a new database; all share one Redis.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import redis

from benchmarks.peers import SERVERS, Part, Peer

BASE_DIR = Path(__file__).resolve().parent.parent
START_SECONDS = 60
#: A little more than the maximum of `runrooms` for its shutdown.
END_SECONDS = 30
POSTGRES = "ROOMS_BENCH_POSTGRES_URL"


class CannotServe(Exception):
    """A server did not start."""


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Ground:
    """The databases, Redis and Node for the servers of a run, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prepared = folder / "prepared.sqlite3"
        self.missing: dict[Part, str] = {}
        self.node = self._node()
        self.redis_port = free_port()
        self.redis = self._start_redis()
        if not os.environ.get(POSTGRES):
            self.missing["postgres"] = (
                f"the environment variable {POSTGRES}, with the address of an empty database"
            )
        self._prepare(f"sqlite:///{self.prepared}")
        if "postgres" not in self.missing:
            self._prepare(os.environ[POSTGRES])

    def close(self) -> None:
        """Stop Redis."""
        if self.redis is not None:
            end(self.redis)

    def lacks(self, peer: Peer) -> str | None:
        """Return what the peer needs and this machine lacks."""
        return "; ".join(self.missing[part] for part in sorted(peer.needs) if part in self.missing) or None

    @contextlib.contextmanager
    def serve(self, peer: Peer) -> Iterator[tuple[int, list[int]]]:
        """Serve in the block; yields the port and the ids of the processes.

        Raises CannotServe.
        """
        port = peer.port or free_port()
        values = {"port": str(port), "python": sys.executable, "node": self.node or "node"}
        log = self.folder / f"{peer.name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [part.format(**values) if "{" in part else part for part in peer.command],
                stdout=out,
                stderr=out,
                cwd=BASE_DIR,
                env=self._environment(peer),
                start_new_session=True,
            )
        try:
            wait_until_it_serves(process, port, log, peer.announcement)
            pids = [process.pid]
            if "redis" in peer.needs and self.redis is not None:
                pids.append(self.redis.pid)
            yield port, pids
        finally:
            end(process)

    def _environment(self, peer: Peer) -> dict[str, str]:
        environment = clean_environment() | dict(peer.environment)
        environment["NODE_PATH"] = str(Path(sys.prefix) / "node" / "node_modules")
        if "redis" in peer.needs:
            redis.Redis(port=self.redis_port).flushall()
            environment["REDIS_URL"] = f"redis://127.0.0.1:{self.redis_port}/0"
        if peer.is_rooms:
            environment |= {
                "SECRET_KEY": "not secret " * 6,
                "ALLOWED_HOSTS": "127.0.0.1",
                "LOG_LEVEL": "WARNING",
            }
            environment["DATABASE_URL"] = (
                os.environ[POSTGRES] if "postgres" in peer.needs else self._fresh_database()
            )
        return environment

    def _fresh_database(self) -> str:
        database = self.folder / "fresh.sqlite3"
        for left in self.folder.glob("fresh.sqlite3*"):
            left.unlink()
        shutil.copy(self.prepared, database)
        return f"sqlite:///{database}"

    def _prepare(self, url: str) -> None:
        subprocess.run(
            [sys.executable, "manage.py", "rooms_demo", "--no-serve", "--bench"],
            cwd=BASE_DIR,
            env=clean_environment() | {"DATABASE_URL": url, "DEBUG": "1"},
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def _node(self) -> str | None:
        """Return Node, with the packages of `servers/node` installed in this environment."""
        node, npm = shutil.which("node"), shutil.which("npm")
        if not node or not npm:
            self.missing["node"] = "node and npm"
            return None
        packages = Path(sys.prefix) / "node"
        packages.mkdir(exist_ok=True)
        lock = (SERVERS / "node" / "package-lock.json").read_bytes()
        installed = packages / "installed.json"
        if installed.exists() and installed.read_bytes() == lock:
            return node
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SERVERS / "node" / name, packages)
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=packages,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            self.missing["node"] = f"the packages from npm ({done.stderr.strip()[-300:]})"
            return None
        installed.write_bytes(lock)
        return node

    def _start_redis(self) -> subprocess.Popen[bytes] | None:
        directories = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.prefix) / "bin")])
        for name in ("valkey-server", "redis-server"):
            if (program := shutil.which(name, path=directories)) is None:
                continue
            log = self.folder / "redis.log"
            options = [
                "--port",
                str(self.redis_port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ]
            with log.open("wb") as out:
                process = subprocess.Popen(
                    [program, *options], stdout=out, stderr=out, cwd=self.folder, start_new_session=True
                )
            try:
                wait_until_it_serves(process, self.redis_port, log, None)
            except CannotServe:
                end(process)
                continue
            return process
        self.missing["redis"] = "redis-server or valkey-server"
        return None


def clean_environment() -> dict[str, str]:
    """Return the environment of a server, without variables that configure a site."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    return kept | {"PYTHONUNBUFFERED": "1"}


def wait_until_it_serves(
    process: subprocess.Popen[bytes], port: int, log: Path, announcement: str | None
) -> None:
    """Wait until it serves. Raises CannotServe with the end of its log."""
    for _ in range(START_SECONDS * 20):
        output = log.read_text(errors="replace")
        if process.poll() is not None:
            break
        if announcement is None or announcement in output:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    raise CannotServe(log.read_text(errors="replace").strip()[-600:] or "the log is empty")


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop the process with SIGTERM, and with SIGKILL after a timeout."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
