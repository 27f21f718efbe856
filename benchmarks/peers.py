"""The servers that are measured: Rooms in its deployments, and alternatives."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.scenarios import Scenario

SERVERS = Path(__file__).parent / "servers"

#: What a peer needs beside its Python packages.
Part = Literal["node", "redis", "postgres"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """``command`` starts the server; it may use ``{port}``, ``{python}``, ``{node}``.

    ``announcement`` is the start of a line that it prints when it serves; without one it serves as soon
    as its port accepts connections.
    """

    name: str
    title: str
    protocol: str
    command: tuple[str, ...]
    path: str | None = None
    needs: frozenset[Part] = frozenset()
    environment: Mapping[str, str] = field(default_factory=dict)
    announcement: str | None = None
    port: int | None = None
    is_rooms: bool = False
    only: frozenset[str] = frozenset()

    def takes(self, scenario: Scenario) -> bool:
        """Whether the server supports the scenario."""
        if self.only:
            return scenario.name in self.only
        if self.protocol == "goroomserver":
            return scenario.name in {"echo", "handshake"}
        if self.protocol == "rtbroadcaster" and scenario.name in {"echo", "unstalled", "stalled"}:
            # It has no replies, and closes a connection that sends more than 512 bytes.
            return False
        if self.protocol == "tutorial" and "rate" in scenario.options:
            # Far above its capacity: the run would measure its queues, for most of a minute.
            return False
        return self.is_rooms or not scenario.is_stored


def rooms(
    name: str,
    title: str,
    *options: str,
    needs: frozenset[Part] = frozenset(),
    only: frozenset[str] = frozenset(),
) -> Peer:
    """Rooms on its own server."""
    command = ("{python}", "manage.py", "runrooms", "--listen", "127.0.0.1:{port}", *options)
    return Peer(
        name=name,
        title=title,
        protocol="native",
        command=command,
        needs=needs,
        announcement="Listening on",
        is_rooms=True,
        only=only,
    )


def endpoint(protocol: str) -> Peer:
    """Rooms with the clients of another room server."""
    return Peer(
        name=f"rooms-{protocol}",
        title=f"Rooms, runrooms, protocol {protocol}",
        protocol=protocol,
        command=(*("{python}", "manage.py", "runrooms", "--listen"), f"127.0.0.1:{{port}}={protocol}/bench"),
        announcement="Listening on",
        is_rooms=True,
        only=frozenset(
            {"fanout-8", "fanout-1", "rooms", *(() if protocol == "rtbroadcaster" else ("echo",))}
        ),
    )


#: The options of `runrooms` for uvicorn, except its own WebSocket class.
UVICORN = (
    *("{python}", "-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning"),
    *("--ws", "websockets-sansio", "--ws-per-message-deflate", "false"),
)
DAPHNE = ("{python}", "-m", "daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0")
TUTORIAL = "benchmarks.servers.tutorial:application"


def tutorial(server: str, command: tuple[str, ...], layer: str) -> Peer:
    """The chat of the Channels tutorial."""
    return Peer(
        name=f"tutorial-{server}-{layer}",
        title=f"Channels tutorial, {server}, {'in memory' if layer == 'memory' else 'Redis pub/sub'}",
        protocol="tutorial",
        command=(*command, TUTORIAL),
        needs=frozenset({"redis"}) if layer == "redis" else frozenset(),
    )


PEERS = {
    each.name: each
    for each in (
        rooms("rooms", "**Rooms, runrooms**"),
        rooms("rooms-2", "Rooms, runrooms, 2 workers, Redis", "--workers", "2", needs=frozenset({"redis"})),
        rooms(
            "rooms-postgres",
            "Rooms, runrooms, PostgreSQL",
            needs=frozenset({"postgres"}),
            only=frozenset({"durable"}),
        ),
        Peer(
            name="rooms-uvicorn",
            title="Rooms, uvicorn",
            protocol="native",
            command=(*UVICORN, "roomsite.asgi:application"),
            is_rooms=True,
        ),
        Peer(
            name="rooms-daphne",
            title="Rooms, Daphne",
            protocol="native",
            command=(*DAPHNE, "roomsite.asgi:application"),
            is_rooms=True,
        ),
        endpoint("roomer"),
        endpoint("gowsev"),
        endpoint("rtbroadcaster"),
        tutorial("uvicorn", UVICORN, "memory"),
        tutorial("uvicorn", UVICORN, "redis"),
        tutorial("daphne", DAPHNE, "memory"),
        tutorial("daphne", DAPHNE, "redis"),
        Peer(
            name="python-socketio",
            title="python-socketio, uvicorn",
            protocol="socketio",
            command=(*UVICORN, "benchmarks.servers.socketio_chat:application"),
        ),
        Peer(
            name="socketio",
            title="Socket.IO, Node",
            protocol="socketio",
            command=("{node}", str(SERVERS / "node" / "socketio.cjs"), "{port}"),
            needs=frozenset({"node"}),
        ),
        Peer(
            name="ws",
            title="ws, Node",
            protocol="json",
            command=("{node}", str(SERVERS / "node" / "ws.cjs"), "{port}"),
            needs=frozenset({"node"}),
        ),
    )
}


def another(name: str, protocol: str, port: str, command: str) -> Peer:
    """A server from the command line, started by ``command`` on ``port``.

    Raises ValueError.
    """
    if not port.isdigit():
        raise ValueError(f"Expected a number as the port of --also {name}, got {port!r}.")
    return Peer(name=name, title=name, protocol=protocol, command=tuple(shlex.split(command)), port=int(port))
