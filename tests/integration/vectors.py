"""A player of the transcripts in tests/vectors, against a running server.

`load()` reads the files; `play()` plays one and raises `Mismatch` at the first difference; `play_all()`
plays many concurrently. tests/vectors/README.md describes the format of the files.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.integration.values import Arrived, Event, Known, matches, written

FOLDER = Path(__file__).resolve().parent.parent / "vectors"

#: The paths that clients of the originals use, and the applications behind them.
ADDRESSES = {
    "roomer": ("/ws", "roomer"),
    "rtbroadcaster": ("/broadcasting", "rtbroadcaster"),
    "goroomserver": ("/", "test"),
    "gowsev": ("/ws/gowsev/gowsev/", "gowsev"),
}
#: Protocols with several messages per frame, one per line.
LINES = frozenset({"rtbroadcaster", "native"})

QUIET = 0.25
"""Seconds to wait where nothing is expected."""
PATIENCE = 60.0
"""The timeout in seconds for an expected event."""
AT_ONCE = 16
"""The number of scenarios of one protocol that run concurrently."""
ROOMER_APPLICATIONS = 8
"""The number of applications of roomer, which each run one scenario at a time: all clients share root."""


@dataclass(frozen=True)
class Scenario:
    """One file; ``expect`` is what this project's server must answer."""

    protocol: str
    name: str
    steps: Sequence[Mapping[str, Any]]
    expect: Sequence[Mapping[str, Sequence[Event]]]
    application: str | None = None
    rooms: Sequence[Mapping[str, Any]] = field(default=())

    def __str__(self) -> str:
        return f"{self.protocol}/{self.name}"

    def address(self, protocol: str | None) -> str:
        """Return the path of a protocol, or of the scenario's own, to its application."""
        path, application = ADDRESSES[self.protocol]
        application = self.application or application
        if protocol == "native":
            return f"/ws/rooms/{application}/"
        if protocol is None and self.application is None:
            return path
        protocol = protocol or self.protocol
        return "/ws/goroomserver/" if protocol == "goroomserver" else f"/ws/{protocol}/{application}/"


class Mismatch(AssertionError):
    """The server did not answer as in the transcript."""


def load() -> list[Scenario]:
    """Return all scenarios, those of the originals first.

    One of ours replaces an original of the same name whose file is marked as undecided.
    """
    ours = {str(each): each for each in map(_read, sorted(FOLDER.glob("ours/*/*.json")))}
    theirs = [_read(path) for protocol in ADDRESSES for path in sorted((FOLDER / protocol).glob("*.json"))]
    scenarios = [ours.pop(str(each), each) for each in theirs] + list(ours.values())
    return [_spread(each, number) for number, each in enumerate(scenarios)]


def _spread(scenario: Scenario, number: int) -> Scenario:
    """Move some scenarios of roomer from the application of the original's address to further ones."""
    index = number % ROOMER_APPLICATIONS
    if scenario.protocol != "roomer" or scenario.application is not None or not index:
        return scenario
    return replace(scenario, application=f"roomer-{index}")


def _read(path: Path) -> Scenario:
    content = json.loads(path.read_text())
    expect = content["expect_ours"] or content["expect"]
    assert content["name"] == path.stem, f"{path} has the name {content['name']}"
    assert content["protocol"] == path.parent.name, f"{path} has the protocol {content['protocol']}"
    assert len(expect) == len(content["steps"]), (
        f"{path} has {len(expect)} expectations for {len(content['steps'])} steps"
    )
    return Scenario(
        content["protocol"],
        content["name"],
        content["steps"],
        expect,
        content.get("application"),
        content.get("rooms", ()),
    )


class Client:
    """One connection, and the events that arrived on it."""

    def __init__(self, socket: ClientConnection, *, lines: bool) -> None:
        self.socket = socket
        self._lines = lines
        self._arrived: asyncio.Queue[Arrived] = asyncio.Queue()
        self._kept: list[Arrived] = []
        self._reading = asyncio.create_task(self._read())

    async def next(self, patience: float) -> Arrived:
        """Return the next event. Raises TimeoutError."""
        return self._kept.pop() if self._kept else await asyncio.wait_for(self._arrived.get(), patience)

    def keep(self, arrived: Arrived) -> None:
        """Return this event again next time."""
        self._kept.append(arrived)

    def more(self) -> Arrived | None:
        """Return an event that has arrived already, or None."""
        if self._kept:
            return self._kept.pop()
        return None if self._arrived.empty() else self._arrived.get_nowait()

    async def end(self) -> None:
        await self.socket.close()
        await self._reading

    async def _read(self) -> None:
        try:
            while True:
                for arrived in self._messages(await self.socket.recv()):
                    self._arrived.put_nowait(arrived)
        except ConnectionClosed:
            self._arrived.put_nowait(Arrived("close", code=self.socket.close_code or 0))

    def _messages(self, frame: str | bytes) -> Iterable[Arrived]:
        if isinstance(frame, bytes):
            return [Arrived("binary", frame)]
        lines = frame.split("\n") if self._lines else [frame]
        return [Arrived("text", line.encode()) for line in lines]


async def play(scenario: Scenario, server: str, *, quiet: float = QUIET, patience: float = PATIENCE) -> None:
    """Play a scenario against a server (``ws://host:port``). Raises Mismatch."""
    player = _Player(scenario, server, quiet, patience)
    try:
        await player.play()
    finally:
        await asyncio.gather(*(client.end() for client in player.clients.values()))


async def play_all(scenarios: Iterable[Scenario], server: str) -> dict[str, Exception | None]:
    """Play scenarios concurrently, and return the error of each by its name."""
    results: dict[str, Exception | None] = {}
    limits = {each: asyncio.Semaphore(AT_ONCE) for each in ADDRESSES}
    roomer = defaultdict[str | None, asyncio.Semaphore](lambda: asyncio.Semaphore(1))

    async def outcome(scenario: Scenario) -> None:
        of_roomer = scenario.protocol == "roomer"
        async with roomer[scenario.application] if of_roomer else limits[scenario.protocol]:
            try:
                if of_roomer:
                    await wait_for_empty_root(server + scenario.address(None))
                await play(scenario, server)
                results[str(scenario)] = None
            except Exception as error:
                results[str(scenario)] = error

    await asyncio.gather(*map(outcome, scenarios))
    return results


async def wait_for_empty_root(address: str) -> None:
    """Wait until no other client is in root, which all clients of roomer share."""
    async with asyncio.timeout(PATIENCE), open_socket(address) as socket:
        *_, own, listed = _fields(await socket.recv())
        others = set(json.loads(listed)) - {own.decode()}
        while others:
            _, event, _, _, name = _fields(await socket.recv())
            others -= {name.decode()} if event == b"member_left" else set()
        await socket.send(written({"fields": ["root", "leave", "", "", ""]}, {}))
        while _fields(await socket.recv())[1] != b"leave_ack":
            pass


def _fields(frame: str | bytes) -> list[bytes]:
    assert isinstance(frame, bytes)
    fields, at = [], 0
    while at < len(frame):
        length = int.from_bytes(frame[at : at + 4], "big")
        fields.append(frame[at + 4 : at + 4 + length])
        at += 4 + length
    return fields


def open_socket(address: str, **options: Any) -> connect:
    """Open a WebSocket without subprotocol, Origin, compression and pings of its own."""
    plain: dict[str, Any] = {"compression": None, "ping_interval": None, "proxy": None, "max_size": None}
    return connect(address, **{**plain, "max_queue": None, **options})


class _Player:
    def __init__(self, scenario: Scenario, server: str, quiet: float, patience: float) -> None:
        self.clients: dict[str, Client] = {}
        self._scenario = scenario
        self._server = server
        self._quiet = quiet
        self._patience = patience
        self._known: Known = {}

    async def play(self) -> None:
        for number, step in enumerate(self._scenario.steps):
            where = f"{self._scenario}, step {number} ({step['client']} {step['action']})"
            try:
                await self._execute(step)
            except ConnectionClosed as error:
                raise Mismatch(f"{where}: the connection is closed: {error}") from None
            expected = self._scenario.expect[number]
            await self._expect(expected, where)
            if not expected:
                await asyncio.sleep(step["ms"] / 1000 if "ms" in step else self._quiet)
            self._expect_no_more(where)
        await asyncio.sleep(self._quiet)
        self._expect_no_more(f"{self._scenario}, afterwards")

    async def _execute(self, step: Mapping[str, Any]) -> None:
        action, name = step["action"], step["client"]
        if action == "connect":
            protocol = step.get("protocol")
            socket = await open_socket(self._server + self._scenario.address(protocol))
            self.clients[name] = Client(socket, lines=(protocol or self._scenario.protocol) in LINES)
        elif action in ("send_text", "send_binary"):
            await self._send(self.clients[name].socket, step, text=action == "send_text")
        elif action == "close":
            await self.clients[name].socket.close(step.get("code", 1000))
        elif action == "drop":
            self.clients[name].socket.transport.abort()
        elif action != "expect_quiet":
            raise ValueError(f"Got the unknown action {action!r}.")

    async def _send(self, socket: ClientConnection, step: Mapping[str, Any], *, text: bool) -> None:
        if "fragments" in step:
            await socket.send([written(each, self._known) for each in step["fragments"]], text=text)
        else:
            for each in step["burst"] if "burst" in step else [step["data"]]:
                await socket.send(written(each, self._known), text=text)

    async def _expect(self, expected: Mapping[str, Sequence[Event]], where: str) -> None:
        for name, events in expected.items():
            for event in events:
                try:
                    await self._expect_event(self.clients[name], event, f"{where}: {name}")
                except TimeoutError:
                    if "optional" in event:
                        continue
                    raise Mismatch(f"{where}: {name} did not get {_short(event)}") from None

    async def _expect_event(self, client: Client, event: Event, where: str) -> None:
        missing = list(event.get("unordered", [event]))
        while missing:
            arrived = await client.next(self._patience)
            for each in missing:
                now = matches(each.get("optional", each), arrived, self._known)
                if now is not None:
                    self._known = now
                    missing.remove(each)
                    break
            else:
                if "optional" not in event:
                    raise Mismatch(f"{where} got {arrived}, expected {_short(missing)}")
                client.keep(arrived)
                return

    def _expect_no_more(self, where: str) -> None:
        for name, client in self.clients.items():
            if (arrived := client.more()) is not None:
                raise Mismatch(f"{where}: {name} got {arrived}, expected nothing")


def _short(event: Any) -> str:
    return json.dumps(event, ensure_ascii=False)[:300]
