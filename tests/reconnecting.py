"""A reconnecting client of the native protocol.

Comments give the numbers of the rules.

    client = Reconnecting(f"{server.ws}/ws/rooms/durable/", "ann")      # or several addresses, in turn
    await client.start()
    await client.join("lobby")
    seq = await client.send("lobby", "Hello", key="1")                  # across lost connections and restarts
    client.log("lobby")                                                 # the delivered messages, in order
    await client.stop()

It records what happens: `log`, `events` (joined, left, removed), `resets`, `reconnects`, `catch_ups`
(seconds from each lost connection until every room was joined again), `waits` (before each attempt),
`pauses` (after refusals), `closes` (the close codes). `until` waits for any of these. A test shortens the
timeouts of the rules with a `Pace`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random as random_library
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

Frame = dict[str, Any]

#: Close codes of WebSocket after which the client reconnects (rule 6).
TEMPORARY = frozenset({1001, 1005, 1006, 1011, 1012, 1013})
ABNORMAL_CLOSURE = 1006
SESSION_EXPIRED = 4005
LOGGED_OUT = 4510

IN_FLIGHT = 8
MAX_WAITING = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The delays and timeouts of the rules, in seconds."""

    shortest: float = 0.2
    longest: float = 20.0
    stable: float = 30.0
    ping: float = 25.0
    pong: float = 10.0
    pause: float = 1.0
    longest_pause: float = 20.0
    rate_pause: float = 15.0
    careful: float = 30.0


class Lost(Exception):
    """The connection was lost before the answer."""


class Ended(Exception):
    """The client does not reconnect: stopped, closed permanently, or without a login."""

    def __init__(self, reason: str, code: int | str | None = None) -> None:
        super().__init__(reason)
        self.code = code


class RequestRejected(Exception):
    """The server answered a request with an error."""

    def __init__(self, answer: Frame) -> None:
        super().__init__(f"{answer['code']}: {answer.get('message', '')}")
        self.code: str = answer["code"]
        self.retry: bool = answer.get("retry", False)


class QueueFull(Exception):
    """The queue of messages to send is full."""


class Delivered(NamedTuple):
    """A message as delivered to the application. ``at``: monotonic seconds."""

    epoch: str | None
    seq: int | None
    sender: str | None
    event: str
    data: Any
    at: float


class Event(NamedTuple):
    """A user joined or left, or this client was removed."""

    kind: str
    room: str
    user: str
    reason: str
    at: float


class Reset(NamedTuple):
    """A room's log restarts at ``index``: missed messages could not be recovered."""

    room: str
    index: int
    epoch: str
    at: float


@dataclass(slots=True)
class Membership:
    """One room: the position in it, its members, and the delivered messages."""

    room: str
    options: Frame
    first: asyncio.Future[Frame]
    """The reply to the first join."""
    position: Frame | None = None
    entered: bool = False
    here: bool = False
    """Whether it is joined on the current connection."""
    joining: asyncio.Task[None] | None = None
    log: list[Delivered] = field(default_factory=list)
    people: set[str] = field(default_factory=set)
    count: int = 0

    def request(self) -> Frame:
        """Return the fields of the next join."""
        since = {"since": self.position} if self.position else {}
        return {"room": self.room, **self.options, **since}


class Reconnecting:
    """One user of one site; the module's docstring has an example."""

    def __init__(
        self,
        urls: str | Sequence[str],
        name: str,
        *,
        random: random_library.Random | None = None,
        pace: Pace | None = None,
        patience: float = 6,
        slowness: float = 0.0,
    ) -> None:
        """``patience``: the number of retries after a temporary refusal.

        ``slowness``: seconds to sleep after each frame.
        """
        self.name = name
        self.user: Frame | None = None
        self.token: str | None = None
        self.events: list[Event] = []
        self.resets: list[Reset] = []
        self.catch_ups: list[float] = []
        self.waits: list[float] = []
        self.pauses: list[float] = []
        self.closes: list[int] = []
        self.reconnects = 0
        self.gaps = 0
        self.duplicates = 0
        self.unexpected: list[Frame] = []
        self.waiting = 0
        self.ended: Ended | None = None
        self.logged_in = False
        self._urls = [urls] if isinstance(urls, str) else list(urls)
        self._random = random or random_library.Random()
        self._pace = pace or Pace()
        self._patience = patience
        self._slowness = slowness
        self._attempts = 0
        self._ping = self._pace.ping
        self._closing: Frame | None = None
        self._socket: ClientConnection | None = None
        self._runner: asyncio.Task[None] | None = None
        self._here: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()
        self._change = asyncio.Event()
        self._numbers = itertools.count(1)
        self._pending: dict[int, tuple[asyncio.Future[Frame | None], Callable[[Frame], None] | None]] = {}
        self._memberships: dict[str, Membership] = {}
        self._logs: dict[str, list[Delivered]] = {}
        self._lines: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._in_flight = 0
        self._quiet: asyncio.TimerHandle | None = None
        self._careful: asyncio.TimerHandle | None = None
        self._opened_at = 0.0
        self._lost_at: float | None = None

    # The interface of an application

    async def start(self) -> None:
        """Connect; returns once logged in. Raises `Ended` if that is not possible."""
        self._runner = asyncio.create_task(self._run())
        await self.until(lambda: self.logged_in)

    async def stop(self) -> None:
        """Close the connection; pending calls raise `Ended`."""
        if self.ended is None:
            self._end(Ended("The client was stopped."))
        if self._socket is not None:
            await self._socket.close(1000)
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner

    async def join(self, room: str, **options: Any) -> Frame:
        """Join a room and stay in it; returns the reply to the first join.

        Raises `RequestRejected` or `Ended`.
        """
        membership = self._memberships.get(room)
        if membership is None:
            first = asyncio.get_running_loop().create_future()
            membership = self._memberships[room] = Membership(room, options, first)
            membership.log = self._logs.setdefault(room, [])
        self._start_join(membership)
        first = membership.first
        await self.until(first.done)
        return first.result()

    async def leave(self, room: str) -> None:
        """Leave a room; it is not joined again."""
        async with self._lines[room]:
            if self._memberships.pop(room, None) is not None and self.logged_in:
                with suppress(Lost):
                    await self._ask("leave", {"room": room})

    async def send(self, room: str, data: Any, key: str | None = None, **fields: Any) -> int | None:
        """Send a message; returns its sequence number once acknowledged.

        Raises `RequestRejected`, `Ended` or `QueueFull`.
        """
        if fields.get("volatile"):  # rule 26
            if not self._may_send(room):
                raise Lost
            await self._ask("message", {"room": room, "data": data, **fields})
            return None
        if self.waiting >= MAX_WAITING:  # rule 27
            raise QueueFull(f"Expected at most {MAX_WAITING} messages in the queue, got one more.")
        fields = {"room": room, "data": data, "key": key or uuid4().hex, **fields}  # rule 19
        self.waiting += 1
        try:
            async with self._lines[room]:  # rule 20: locks are granted in order
                answer = await self._send_until_answered(room, fields)
        finally:
            self.waiting -= 1
        seq: int | None = answer["seq"]
        return seq

    def log(self, room: str) -> list[Delivered]:
        """Return the messages delivered in a room, in order."""
        return self._logs.get(room, [])

    def people(self, room: str) -> set[str]:
        """Return the names of the members that this client knows."""
        membership = self._memberships.get(room)
        return membership.people if membership else set()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until the predicate is true. Raises `Ended` if the client ends first."""
        while not predicate():
            if self.ended is not None:
                raise self.ended
            await self._change.wait()

    async def request(self, kind: str, **fields: Any) -> Frame:
        """Send any other request, once. Raises `RequestRejected` or `Lost`."""
        return await self._ask(kind, fields)

    def drop(self) -> None:
        """Lose the connection, without a close frame."""
        if self._socket is not None:
            self._socket.transport.abort()

    # Connections

    async def _run(self) -> None:
        try:
            for url in itertools.cycle(self._urls):  # rule 1
                code = await self._live(url)
                if self.ended is not None:
                    return
                self.closes.append(code)
                if not reconnects_after(code):
                    self._end(Ended(f"The server closed with {code}: {self._closing}", code))
                    return
                self.waits.append(self._wait())
                await asyncio.sleep(self.waits[-1])
                self.reconnects += 1
        except Exception as error:
            self._end(Ended(f"The client failed: {error!r}"))
            raise

    def _wait(self) -> float:
        retry_in = (self._closing or {}).get("retry_in")
        if retry_in is not None:  # rule 4
            return float(retry_in)
        ceiling = min(self._pace.longest, self._pace.shortest * 2 ** min(self._attempts, 30))  # rule 2
        self._attempts += 1
        return self._random.uniform(0, ceiling)

    async def _live(self, url: str) -> int:
        """Run one connection until it ends; returns its close code."""
        self._closing, self._ping, self._opened_at = None, self._pace.ping, 0.0
        self._closed = asyncio.Event()
        code = ABNORMAL_CLOSURE
        try:
            async with asyncio.timeout(self._silence):
                self._socket = await connect(
                    url,
                    subprotocols=[Subprotocol("rooms.v1")],
                    compression=None,
                    max_size=None,
                    ping_interval=None,
                    open_timeout=None,
                    close_timeout=1,
                    proxy=None,
                )
            await self._read(self._socket)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else ABNORMAL_CLOSURE
        except (OSError, TimeoutError, WebSocketException):
            pass  # rule 7, and refused connections
        finally:
            self._lose()
        # Rule 5: a proxy may replace the close code by 1006; that of the closing event is then the real one.
        announced = (self._closing or {}).get("code")
        return code if code >= 4000 or announced is None else announced

    @property
    def _silence(self) -> float:
        return self._ping + self._pace.pong

    async def _read(self, socket: ClientConnection) -> None:
        lines = msgspec.json.Decoder(Frame)
        while True:
            async with asyncio.timeout(self._silence):  # rule 7
                for frame in lines.decode_lines(await socket.recv()):
                    if frame["type"] == "ping":
                        with suppress(Lost):  # after `closing`
                            await self._send({"type": "pong"})  # rule 8
                    else:
                        self._handle(frame)
            self._changed()
            if self._slowness:
                await asyncio.sleep(self._slowness)

    def _lose(self) -> None:
        """Clean up a connection that has ended."""
        if self._socket is not None:
            self._socket.transport.abort()
            self._socket = None
        if self._opened_at and monotonic() - self._opened_at >= self._pace.stable:  # rule 3
            self._attempts = 0
        if self.logged_in and self._lost_at is None:
            self._lost_at = monotonic()
        self.logged_in = False
        self._closed.set()
        if self._quiet is not None:  # the next connection has its own rate limit
            self._quiet.cancel()
            self._quiet = None
        for task in self._here:
            task.cancel()
        for answer, _ in self._pending.values():
            if not answer.done():
                answer.set_result(None)
        for membership in self._memberships.values():
            membership.here, membership.joining = False, None
        self._changed()

    def _end(self, ended: Ended) -> None:
        self.ended = ended
        self._changed()

    # Requests

    async def _send(self, frame: Frame) -> None:
        if self._socket is None or self._closing is not None:  # rule 5
            raise Lost
        try:
            await self._socket.send(json.dumps(frame))
        except ConnectionClosed:
            raise Lost from None

    async def _ask(self, kind: str, fields: Frame, on_reply: Callable[[Frame], None] | None = None) -> Frame:
        """Return the data of the reply.

        ``on_reply`` gets them before any later frame is handled (rule 28).
        """
        number = next(self._numbers)
        waiting: asyncio.Future[Frame | None] = asyncio.get_running_loop().create_future()
        self._pending[number] = waiting, on_reply
        try:
            await self._send({"type": kind, "id": number, **fields})
            answer = await waiting
        finally:
            del self._pending[number]
        if answer is None:
            raise Lost
        if answer["type"] == "error":
            raise RequestRejected(answer)
        data: Frame = answer["data"]
        return data

    async def _send_until_answered(self, room: str, fields: Frame) -> Frame:
        for refusals in itertools.count():
            try:
                return await self._request_when_ready(lambda: self._may_send(room), "message", fields)
            except RequestRejected as refused:  # rules 23 and 25: later messages wait behind it
                if not refused.retry or refusals >= self._patience:
                    raise
                await self._pause_after(refused, refusals)
        raise AssertionError("unreachable")

    async def _request_when_ready(
        self,
        ready: Callable[[], bool],
        kind: str,
        fields: Frame,
        on_reply: Callable[[Frame], None] | None = None,
    ) -> Frame:
        """Send a request when allowed, again if its connection is lost (rule 22)."""
        while True:
            await self.until(
                lambda: ready() and self._quiet is None and self._in_flight < self._max_in_flight
            )
            self._in_flight += 1
            closed = self._closed  # of this connection; the next one has its own
            try:
                return await self._ask(kind, fields, on_reply)
            except Lost:
                await closed.wait()  # after `closing` nothing is sent on this connection
            finally:
                self._in_flight -= 1
                self._changed()

    def _may_send(self, room: str) -> bool:
        membership = self._memberships.get(room)
        return self.logged_in and (membership is None or membership.here)  # rule 21

    @property
    def _max_in_flight(self) -> int:
        return 1 if self._careful else IN_FLIGHT

    async def _pause_after(self, refused: RequestRejected, refusals: int) -> None:
        if refused.code == "rate_limited":
            self._be_careful()
            return
        pause = min(self._pace.longest_pause, self._pace.pause * 2 ** min(refusals, 30))
        self.pauses.append(pause * (1 + self._random.random() / 2))
        with suppress(TimeoutError):
            async with asyncio.timeout(self.pauses[-1]):
                await self._closed.wait()

    def _be_careful(self) -> None:
        """Rule 24: send nothing for a while, then one request at a time."""

        def resume() -> None:
            self._quiet = None
            self._changed()

        def relax() -> None:
            self._careful = None
            self._changed()

        for timer in (self._quiet, self._careful):
            if timer is not None:
                timer.cancel()
        pause = self._pace.rate_pause * (1 + self._random.random() / 2)
        self.pauses.append(pause)
        loop = asyncio.get_running_loop()
        self._quiet = loop.call_later(pause, resume)
        self._careful = loop.call_later(pause + self._pace.careful, relax)

    # Events

    def _handle(self, frame: Frame) -> None:
        match frame["type"]:
            case "message":
                self._message(frame)
            case "reply" | "error":
                self._answer(frame)
            case "joined" | "left":
                self._moved(frame["type"], frame["room"], frame["user"], frame.get("reason", ""))
            case "members":
                self._members_changed(frame)
            case "removed":
                self._memberships.pop(frame["room"], None)  # rule 18
                self.events.append(Event("removed", frame["room"], self.name, frame["reason"], monotonic()))
            case "closing":
                self._closing = frame
            case "connected":
                self._ping, self._opened_at = frame["ping"], monotonic()
                self._soon(self._log_in_and_join(frame["user"]))

    def _answer(self, frame: Frame) -> None:
        waiting, on_reply = self._pending.get(frame.get("id", 0), (None, None))
        if waiting is None or waiting.done():
            self.unexpected.append(frame)
            return
        if on_reply is not None and frame["type"] == "reply":
            on_reply(frame["data"])
        waiting.set_result(frame)

    def _message(self, frame: Frame) -> None:
        membership = self._memberships.get(frame["room"])
        if membership is None:
            return
        seq, position = frame["seq"], membership.position
        if seq is None or position is None:  # rule 16
            self._deliver(membership, frame)
        elif seq <= position["seq"]:
            self.duplicates += 1
        elif seq == position["seq"] + 1:
            position["seq"] = seq
            self._deliver(membership, frame)
        else:  # rule 17: the reply brings what is missing, this message included
            self.gaps += 1
            self._start_join(membership)

    def _deliver(self, membership: Membership, frame: Frame) -> None:
        epoch = membership.position["epoch"] if membership.position else None
        sender = frame["from"]["name"] if frame["from"] else None
        delivered = Delivered(epoch, frame["seq"], sender, frame["event"], frame["data"], monotonic())
        membership.log.append(delivered)

    def _moved(self, kind: str, room: str, user: Frame, reason: str) -> None:
        name = user["name"]
        self.events.append(Event(kind, room, name, reason, monotonic()))
        membership = self._memberships.get(room)
        if membership is not None:
            (membership.people.add if kind == "joined" else membership.people.discard)(name)
            membership.count += 1 if kind == "joined" else -1

    def _members_changed(self, frame: Frame) -> None:
        for kind in ("joined", "left"):
            for user in frame[kind]:
                self._moved(kind, frame["room"], user, "")
        membership = self._memberships.get(frame["room"])
        if membership is not None:
            membership.count = frame["count"]

    # Login and join

    def _soon(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that is cancelled at the end of the connection."""
        task = asyncio.create_task(work)
        self._here.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._here.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(Ended(f"The client failed: {error!r}"))

    async def _log_in_and_join(self, user: Frame | None) -> None:
        try:
            self.user = user or await self._log_in()
        except Lost:
            return
        except RequestRejected as refused:
            if refused.retry and (self.user or refused.code != "name_taken"):  # rule 12
                self.drop()
            else:
                self._end(Ended(str(refused), refused.code))
                self.drop()
            return
        self.logged_in = True
        self._changed()
        enters = [self._start_join(membership) for membership in self._memberships.values()]  # rule 13
        await asyncio.gather(*filter(None, enters))
        if self._lost_at is not None:
            self.catch_ups.append(monotonic() - self._lost_at)
            self._lost_at = None
            self._changed()

    async def _log_in(self) -> Frame:
        if self.closes and self.closes[-1] in {SESSION_EXPIRED, LOGGED_OUT}:
            self.token = None  # rule 11
        if self.token is not None:
            try:
                return self._remember(await self._ask("login", {"token": self.token}))  # rule 10
            except RequestRejected as refused:
                if refused.retry:
                    raise
                self.token = None
        return self._remember(await self._ask("login", {"name": self.name}))

    def _remember(self, answer: Frame) -> Frame:
        self.token = answer["token"]
        user: Frame = answer["user"]
        return user

    def _start_join(self, membership: Membership) -> asyncio.Task[None] | None:
        """Start to join, if logged in and not joining already."""
        if self.logged_in and membership.joining is None:
            membership.here = False
            membership.joining = self._soon(self._join(membership))
        return membership.joining

    async def _join(self, membership: Membership) -> None:
        for refusals in itertools.count():
            try:
                request = membership.request()
                await self._request_when_ready(
                    lambda: self.logged_in, "join", request, lambda data: self._joined(membership, data)
                )
                return
            except RequestRejected as refused:
                if not refused.retry or (not membership.entered and refusals >= self._patience):  # rule 18
                    self._give_up(membership, refused)
                    return
                await self._pause_after(refused, refusals)

    def _joined(self, membership: Membership, reply: Frame) -> None:
        if self._memberships.get(membership.room) is not membership:
            return
        before, recovered = membership.position, reply["recovered"]
        lost = membership.entered and reply["position"] is not None and not recovered
        # In a room without history nothing could replace the delivered messages.
        membership.position = dict(reply["position"]) if reply["position"] else None
        if lost:  # rule 15
            index, epoch = len(membership.log), reply["position"]["epoch"]
            self.resets.append(Reset(membership.room, index, epoch, monotonic()))
        newest = before["seq"] if before and recovered else 0
        for frame in reply["messages"]:  # rule 14
            if frame["seq"] is None or frame["seq"] > newest:
                self._deliver(membership, frame)
        membership.people = {user["name"] for user in reply["members"]}
        membership.count = reply["count"]
        membership.entered = membership.here = True
        membership.joining = None
        if not membership.first.done():
            membership.first.set_result(reply)
        self._changed()

    def _give_up(self, membership: Membership, refused: RequestRejected) -> None:
        self._memberships.pop(membership.room, None)
        if membership.first.done():
            self.events.append(Event("removed", membership.room, self.name, refused.code, monotonic()))
        else:
            membership.first.set_exception(refused)
        self._changed()

    def _changed(self) -> None:
        """Wake the callers of `until`."""
        self._change.set()
        self._change = asyncio.Event()


def reconnects_after(code: int) -> bool:
    """Whether a client reconnects after the close code (rule 6)."""
    return code in TEMPORARY or 4000 <= code < 4500
