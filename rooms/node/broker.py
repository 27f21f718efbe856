"""The one channel of this process on the channel layer.

Through it the nodes reach each other. A process, not each socket, is the member of the layer's
groups: layers drop silently above their capacity, forget memberships after a day, and cost a
delivery per member. What is published in one turn of the event loop travels together. A
message on the layer is only a hint: what the layer loses of a room with history is read from there
(``recovery.py``). An outage of the layer loses hints and nothing else: publishing never waits for it
and never fails.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from typing import Any, Protocol

import msgspec
from channels.layers import InMemoryChannelLayer, get_channel_layer

from rooms.concurrency.locks import Locks
from rooms.node.control_messages import AnyControlMessage
from rooms.protocol.errors import Unavailable
from rooms.protocol.events import RoomEvent

logger = logging.getLogger("rooms.broker")

CONTROL = "rooms.control"
# A published message waits no longer for the layer; after a failure its group is retried after the pause.
LAYER_TIMEOUT = 2
RETRY_PAUSE = 0.5
# More than this does not wait: messages and their bytes.
MAX_PENDING = 10_000
MAX_PENDING_BYTES = 16 * 1024 * 1024
# The frames of a turn are one message up to this size. Redis closes connections that are megabytes behind.
MAX_LAYER_MESSAGE_BYTES = 256 * 1024
# Layers forget memberships after a day.
RENEW_INTERVAL = 6 * 3600


class BrokerMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event on its way to a group in other processes.

    ``only`` holds the ids of the users that receive it.
    """

    event: RoomEvent
    only: list[str] | None = None
    volatile: bool = False


class BrokerListener(Protocol):
    """The node, as the broker sees it. Both methods return at once."""

    def on_event(self, key: str, message: BrokerMessage) -> None:
        """Another process published an event to the group with this key."""

    def on_control(self, message: AnyControlMessage) -> None:
        """Another process sent a control message."""


_decode_message = msgspec.json.Decoder(BrokerMessage)
_decode_control: msgspec.json.Decoder[AnyControlMessage] = msgspec.json.Decoder(AnyControlMessage)
_encode = msgspec.json.Encoder().encode


class Broker:
    """Publish to and receive from other processes over the channel layer.

    A broker belongs to one event loop. Without a ``listener`` it can publish, but not subscribe.
    """

    def __init__(self, alias: str, node_id: str, listener: BrokerListener | None = None) -> None:
        self._layer: Any = get_channel_layer(alias)
        self._node_id = node_id
        self._listener = listener
        self._channel = ""
        self._started = False
        self._reachable = True
        # The groups to be subscribed to, and those that the layer has confirmed.
        self._wanted: set[str] = set()
        self._subscribed: set[str] = set()
        self._changing = Locks()
        self._repairing = asyncio.Lock()
        # What is not sent yet, by group; how much that is, including what is being sent.
        self._pending: dict[str, deque[bytes]] = {}
        self._count = self._bytes = 0
        self._all_sent = asyncio.Event()
        self._receiving: asyncio.Task[None] | None = None
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._renewed = time.monotonic()
        # Messages that were dropped, by kind.
        self.dropped: Counter[str] = Counter()

    async def start(self) -> None:
        """Create the channel and begin to receive.

        If the layer does not answer now, this happens as soon as it does.
        """
        if self._layer is not None and self._listener is not None:
            self._started = True
            self._wanted.add(CONTROL)
            await self.repair()

    async def stop(self) -> None:
        """Send what is pending, then give up the channel."""
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
        await self.flush()
        for sending in self._sending.values():
            sending.cancel()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)
        leaving, self._wanted = self._wanted, set()
        for key in leaving:
            if not await self._sync(key):
                break

    # Subscribing -------------------------------------------------------------------------------------

    async def subscribe(self, key: str) -> None:
        """Receive what other processes publish to a group.

        If the layer does not answer now, this begins once it does.
        """
        if not self._started or key in self._wanted:
            return
        self._wanted.add(key)
        if self._reachable:
            await self._sync(key)

    async def unsubscribe(self, key: str, still_wanted: Callable[[], bool] = lambda: False) -> None:
        """Stop receiving a group, unless it is ``still_wanted`` by the time this runs."""
        if key in self._wanted and not still_wanted():
            self._wanted.discard(key)
            if self._reachable:
                await self._sync(key)

    async def repair(self) -> None:
        """Repeat what the layer did not answer to, and renew memberships.

        The layer may have forgotten the memberships.
        """
        if self._repairing.locked():
            return
        async with self._repairing:
            if not self._channel and not await self._create_channel():
                return
            renew = time.monotonic() - self._renewed > RENEW_INTERVAL
            if renew:
                self._renewed = time.monotonic()
            for key in self._wanted | self._subscribed if renew else self._wanted ^ self._subscribed:
                if not await self._sync(key, renew):
                    # The layer is down: the other groups would time out as well.
                    return

    async def _create_channel(self) -> bool:
        try:
            self._channel = await self._with_timeout(self._layer.new_channel("rooms"))
        except Unavailable:
            return False
        self._receiving = asyncio.create_task(self._receive())
        return True

    async def _sync(self, key: str, renew: bool = False) -> bool:
        """Make the layer's membership what is wanted. Returns whether the layer answered.

        Changes of one group are made one after the other.
        """
        if not self._channel:
            return False
        async with self._changing.of(key):
            try:
                if key in self._wanted and (renew or key not in self._subscribed):
                    await self._with_timeout(self._layer.group_add(key, self._channel))
                    self._subscribed.add(key)
                elif key in self._subscribed and key not in self._wanted:
                    await self._with_timeout(self._layer.group_discard(key, self._channel))
                    self._subscribed.discard(key)
            except Unavailable:
                logger.debug("The membership of %s in the channel layer is postponed.", key)
                return False
        return True

    # Publishing --------------------------------------------------------------------------------------

    def publish(
        self, key: str, event: RoomEvent, *, only: Collection[str] | None = None, volatile: bool = False
    ) -> None:
        """Send an event to the group's members in other processes; returns at once."""
        if self._is_alone(key):
            return
        message = BrokerMessage(event=event, only=None if only is None else list(only), volatile=volatile)
        self._enqueue(key, _encode(message))

    def send_control(self, message: AnyControlMessage) -> None:
        """Send a control message to every other process; returns at once."""
        if not self._is_alone(CONTROL):
            self._enqueue(CONTROL, _encode(message))

    async def flush(self) -> None:
        """Wait until everything that was published is handed to the layer, or dropped."""
        while self._count:
            self._all_sent.clear()
            await self._all_sent.wait()

    def _is_alone(self, key: str) -> bool:
        """Whether no other process can receive what is sent to the group.

        Channels' own layer in memory knows all members; a subclass of it may behave differently.
        """
        if type(self._layer) is not InMemoryChannelLayer:
            return self._layer is None
        members = self._layer.groups.get(key)
        return not members or (len(members) == 1 and self._channel in members)

    def _enqueue(self, key: str, frame: bytes) -> None:
        if self._count >= MAX_PENDING or self._bytes + len(frame) > MAX_PENDING_BYTES:
            self.dropped["hint"] += 1
            return
        self._pending.setdefault(key, deque()).append(frame)
        self._count += 1
        self._bytes += len(frame)
        # Each group has a task of its own while it has something pending, so that none waits for another.
        if key not in self._sending:
            self._sending[key] = asyncio.create_task(self._send_pending(key))

    async def _send_pending(self, key: str) -> None:
        pending = self._pending[key]
        try:
            while pending:
                frames = _next_message(pending)
                sent = await self._send(key, frames)
                self._count -= len(frames)
                self._bytes -= sum(map(len, frames))
                if not self._count:
                    self._all_sent.set()
                if not sent:
                    await asyncio.sleep(RETRY_PAUSE)
        finally:
            del self._pending[key], self._sending[key]

    async def _send(self, key: str, frames: list[bytes]) -> bool:
        message = {"type": "rooms.relay", "node": self._node_id, "group": key, "frames": frames}
        try:
            await self._with_timeout(self._layer.group_send(key, message))
        except Unavailable:
            self.dropped["hint"] += len(frames)
            return False
        return True

    # Receiving ---------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            try:
                message = await self._layer.receive(self._channel)
            except Exception:
                logger.exception("The channel layer failed; trying again in a second.")
                self._renewed = -math.inf
                await asyncio.sleep(1)
                continue
            # No data of a client is at the top level of a layer message, and the group does not choose a
            # method: what a frame holds is decoded as data only.
            if message.get("node") == self._node_id:
                continue
            for frame in message.get("frames", ()):
                try:
                    self._dispatch(message["group"], frame)
                except Exception:
                    logger.exception("A message from another process could not be used.")

    def _dispatch(self, key: str, frame: bytes) -> None:
        assert self._listener is not None
        if key == CONTROL:
            self._listener.on_control(_decode_control.decode(frame))
        else:
            self._listener.on_event(key, _decode_message.decode(frame))

    async def _with_timeout(self, work: Any) -> Any:
        """Return what the layer answers, within a timeout.

        Raises Unavailable. The outage is logged once, as is its end.
        """
        try:
            async with asyncio.timeout(LAYER_TIMEOUT):
                answer = await work
        except Exception as error:
            if self._reachable:
                logger.warning(
                    "The channel layer does not answer; other processes receive nothing: %r", error
                )
            self._reachable = False
            raise Unavailable("The channel layer does not answer; try again in a moment.") from error
        if not self._reachable:
            logger.warning("The channel layer answers again.")
            # It may have lost its memberships.
            self._renewed = -math.inf
        self._reachable = True
        return answer


def _next_message(pending: deque[bytes]) -> list[bytes]:
    """Take out the frames that travel next."""
    frames = [pending.popleft()]
    size = len(frames[0])
    while pending and size + len(pending[0]) <= MAX_LAYER_MESSAGE_BYTES:
        frames.append(pending.popleft())
        size += len(frames[-1])
    return frames
