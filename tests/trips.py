"""Trace the modules that an operation enters, and count the changes between them.

    python -m tests.trips                 the table of all trips
    python -m tests.trips --trip join     the sequence of the functions of one trip

A trip is one operation on SQLite, traced in one process over all of its threads:

- ``files`` is the number of different files of ``rooms/`` in which a function is entered.
- ``changes`` is the number of times that a function is entered in another file than the function before.

A call enters its file, and so does each resumption of a generator or coroutine; a return does not. The
entries of all threads form one sequence. Code outside ``rooms/`` does not count, and neither does generated
code (``<string>``, as the ``__init__`` of a dataclass). A comprehension or lambda is an entry into its file.

A trip of a client begins with the bytes that reach the server's WebSocket class, and ends when each of its
recipients has bytes in its transport; so does a publish beside the node. A publish from a view ends with its
call, and the saving of settings when the process is idle again. The best of several runs counts: threads and
periodic tasks only add entries.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count, pairwise
from pathlib import Path
from types import FrameType
from typing import Any

ROOMS = f"{Path(__file__).resolve().parent.parent / 'rooms'}{os.sep}"
MEMBERS = 11
RUNS = 4
TIMEOUT = 30
IDLE = 0.05

HANDSHAKE = "\r\n".join(
    [
        "GET /ws/rooms/{application}/ HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: rooms.v1",
        "\r\n",
    ]
)


@dataclass(frozen=True, slots=True)
class Trip:
    """The entries of one operation: a file and a function each, in order."""

    name: str
    entries: list[tuple[str, str]] = field(repr=False)

    @property
    def files(self) -> int:
        return len({file for file, _ in self.entries})

    @property
    def changes(self) -> int:
        return sum(before != after for (before, _), (after, _) in pairwise(self.entries))

    def sequence(self) -> str:
        """One line for each change of the file, with the functions that are entered there."""
        lines: list[tuple[str, list[str]]] = []
        for file, function in self.entries:
            if not lines or lines[-1][0] != file:
                lines.append((file, []))
            lines[-1][1].append(function)
        return "\n".join(f"{file:<34} {' '.join(functions)}" for file, functions in lines)


class Tracer:
    """Records the entries into files of ``rooms/`` in all threads that start after it."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, str]] = []
        self._active = False
        threading.setprofile(self._profile)

    def __len__(self) -> int:
        return len(self._entries)

    def start(self) -> None:
        self._entries = []
        self._active = True
        sys.setprofile(self._profile)

    def stop(self) -> None:
        sys.setprofile(None)
        self._active = False

    def trip(self, name: str) -> Trip:
        """What was recorded between start and stop."""
        return Trip(name, self._entries)

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and self._active:
            code = frame.f_code
            if code.co_filename.startswith(ROOMS):
                self._entries.append((code.co_filename.removeprefix(ROOMS), code.co_name))


class Transport(asyncio.Transport):
    """Swallows what is written and reports each write."""

    def __init__(self, on_write: Callable[[Transport], None]) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._on_write = on_write

    def write(self, data: Any) -> None:
        self._on_write(self)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The buffer is never full."""

    def pause_reading(self) -> None:
        """There is no socket to pause."""

    def resume_reading(self) -> None:
        """There is no socket to resume."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """There is no socket to close."""

    def abort(self) -> None:
        """There is no socket to abort."""


class Client:
    """A client without a socket: its bytes go straight to the server's WebSocket class."""

    def __init__(self, site: Site) -> None:
        from rooms.server.websocket import WebSocket

        self._site = site
        self.transport = Transport(site.written)
        self._socket = WebSocket(site.config, site.state, {})
        self._socket.connection_made(self.transport)

    def send(self, **command: Any) -> None:
        payload = json.dumps({"id": 1, **command}).encode()
        # Masked with zeros.
        self._socket.data_received(bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload)

    async def ask(self, **command: Any) -> None:
        """Send a command and wait until all its effects are over."""
        await self._site.settled([self], lambda: self.send(**command))

    async def connect(self, name: str = "", *rooms: str, application: str = "trips") -> Client:
        handshake = HANDSHAKE.format(application=application).encode()
        await self._site.settled([self], lambda: self._socket.data_received(handshake))
        if name:
            await self.ask(type="login", name=name)
        for room in rooms:
            await self.ask(type="join", room=room)
        return self


class Site:
    """A node of the example site, its members, and the trips that are traced on it."""

    def __init__(self, tracer: Tracer, needless_hop: bool) -> None:
        from uvicorn import Config
        from uvicorn.server import ServerState

        from roomsite.asgi import application

        self.config = Config(application, log_config=None, lifespan="off", ws_ping_interval=None)
        self.config.load()
        self.state = ServerState()
        self._tracer = tracer
        self._hop = needless() if needless_hop else None
        self._waiting: set[Transport] = set()
        self._all_written = asyncio.Event()
        self._names = count()

    async def measure(self) -> list[Trip]:
        """The trips of clients and of server code beside them."""
        members = [await self._client("plain", "kept") for _ in range(MEMBERS)]
        trips = [
            await self._best("message, history none", lambda: self._message(members, "plain")),
            await self._best("message, history database", lambda: self._message(members, "kept")),
            await self._best("login", self._login),
        ]
        members.pop().send(type="leave", room="plain")
        trips += [
            await self._best("join", lambda: self._join(members)),
            await self._best("publish beside the node", lambda: self._publish(members)),
        ]
        for _ in range(MEMBERS):
            await self._client("plain", application="extended")
        trips.append(await self._best("extension settings saved", self._save_settings))
        return trips

    async def _client(self, *rooms: str, application: str = "trips") -> Client:
        return await Client(self).connect(f"user {next(self._names)}", *rooms, application=application)

    async def _best(self, name: str, run: Callable[[], Awaitable[None]]) -> Trip:
        trips = []
        for _ in range(RUNS):
            await run()
            trips.append(self._tracer.trip(name))
        return min(trips, key=lambda trip: (trip.changes, trip.files))

    async def _message(self, members: list[Client], room: str) -> None:
        await self._traced(members, lambda: members[0].send(type="message", room=room, data="hello"))

    async def _login(self) -> None:
        client = await Client(self).connect()
        await self._traced([client], lambda: client.send(type="login", name=f"user {next(self._names)}"))
        await client.ask(type="logout")

    async def _join(self, members: list[Client]) -> None:
        client = await self._client()
        await self._traced([*members, client], lambda: client.send(type="join", room="plain"))
        await client.ask(type="logout")

    async def _publish(self, members: list[Client]) -> None:
        """As a view of the process with the node does: in a thread without an event loop."""
        views: list[asyncio.Future[None]] = []
        await self._traced(members, lambda: views.append(in_a_thread(publish)))
        await views[0]

    async def _save_settings(self) -> None:
        await self._idle()
        self._tracer.start()
        try:
            await in_a_thread(save_settings)
            await self._idle()
        finally:
            self._tracer.stop()

    async def _traced(self, recipients: list[Client], begin: Callable[[], None]) -> None:
        await self._idle()
        self._tracer.start()
        await self._until_written(recipients, begin)

    async def settled(self, recipients: list[Client], begin: Callable[[], None]) -> None:
        """Carry it out untraced, and wait until the process is idle again."""
        await self._until_written(recipients, begin)
        for _ in range(20):
            await asyncio.sleep(0)

    async def _until_written(self, recipients: list[Client], begin: Callable[[], None]) -> None:
        self._waiting = {client.transport for client in recipients}
        self._all_written.clear()
        begin()
        async with asyncio.timeout(TIMEOUT):
            await self._all_written.wait()

    def written(self, transport: Transport) -> None:
        """Bytes are handed to a transport: the trip ends with the last of its recipients."""
        if transport not in self._waiting:
            return
        if self._hop is not None and len(self._waiting) > 1:
            self._hop()
        self._waiting.discard(transport)
        if not self._waiting:
            self._tracer.stop()
            self._all_written.set()

    async def _idle(self) -> None:
        """Wait until no entry is recorded any more."""
        entries = -1
        while entries != len(self._tracer):
            entries = len(self._tracer)
            await asyncio.sleep(IDLE)


def needless() -> Callable[[], None]:
    """A function that counts as one of another file of ``rooms/``, called once a trip."""
    space: dict[str, Any] = {}
    exec(compile("def hop():\n    pass", f"{ROOMS}needless.py", "exec"), space)
    hop: Callable[[], None] = space["hop"]
    return hop


def in_a_thread(call: Callable[[], None]) -> asyncio.Future[None]:
    return asyncio.get_running_loop().run_in_executor(None, call)


def publish() -> None:
    import rooms

    rooms.publish("trips", "kept", "hello")


_words = count()


def save_settings() -> None:
    """Save a row with other settings of its extension, as the admin does with a form that is valid."""
    from rooms.models import Application

    application = Application.objects.get(name="extended")
    application.extension_settings = {"words": f"word{next(_words)}"}
    application.save()


def prepare(folder: str) -> None:
    """Set up Django with an empty database, an application and its rooms."""
    os.environ.update(
        DJANGO_SETTINGS_MODULE="tests.settings",
        DATABASE_URL=f"sqlite:///{folder}/db.sqlite3",
        DEBUG="1",
    )
    import django
    from django.core.management import call_command

    django.setup()
    logging.disable(logging.INFO)
    call_command("migrate", verbosity=0)
    from rooms.models import Application

    unlimited = {"request_rate": 0, "logins_per_minute": 0, "max_connections_per_address": 0}
    application = Application.objects.create(name="trips", history="none", **unlimited)
    application.rooms.create(name="plain")
    application.rooms.create(name="kept", history="database")
    extended = Application.objects.create(name="extended", extension="roomsite.WordFilter", **unlimited)
    extended.rooms.create(name="plain")


def publish_without_a_node(tracer: Tracer) -> Trip:
    """A WSGI view publishes: its process has no node, and its thread no event loop."""
    trips = []
    for _ in range(RUNS):
        thread = threading.Thread(target=publish)
        tracer.start()
        thread.start()
        thread.join()
        tracer.stop()
        trips.append(tracer.trip("publish from a view"))
    return min(trips, key=lambda trip: (trip.changes, trip.files))


def measure(needless_hop: bool = False) -> list[Trip]:
    """Trace all trips. To be called once, in a process that has not set up Django yet."""
    tracer = Tracer()
    with temporary_folder() as folder:
        prepare(folder)
        # Before the node starts.
        first = publish_without_a_node(tracer)

        async def others() -> list[Trip]:
            return await Site(tracer, needless_hop).measure()

        return [*asyncio.run(others()), first]


@contextmanager
def temporary_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="rooms-trips-", ignore_cleanup_errors=True) as folder:
        yield folder


def table(trips: list[Trip]) -> str:
    lines = [f"{'trip':<28}{'files':>8}{'changes':>9}"]
    lines += [f"{trip.name:<28}{trip.files:>8}{trip.changes:>9}" for trip in trips]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.trips", description="Trace trips through rooms/.")
    parser.add_argument("--trip", help="print the sequence of this one; the begin of its name is enough")
    parser.add_argument("--json", action="store_true", help="print all entries as JSON")
    parser.add_argument(
        "--needless-hop", action="store_true", help="enter a further file in each trip, to prove the budget"
    )
    options = parser.parse_args()
    trips = measure(options.needless_hop)
    if options.json:
        sys.stdout.write(json.dumps([asdict(trip) for trip in trips]))
    else:
        sys.stdout.write(f"{table(trips)}\n")
        for trip in trips:
            if options.trip and trip.name.startswith(options.trip):
                sys.stdout.write(f"\n{trip.name}\n{trip.sequence()}\n")
    sys.stdout.flush()
    # The node's threads do not hold up the end.
    os._exit(0)


if __name__ == "__main__":
    main()
