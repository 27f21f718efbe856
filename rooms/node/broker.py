"""This process's single seat on the Channels layer, through which hubs hear each other.

A process, not each socket, is the member of the layer's groups: layers drop silently above their
capacity, forget memberships after a day, and cost a delivery per member. What is published in one
turn of the event loop travels together. The layer is only a hint: what it loses of a room with
history is fetched from there (``gaps.py``). So a layer that is away, or hangs, costs nobody anything but
hints: publishing never waits for it and never fails.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from typing import Any

import msgspec
from channels.layers import InMemoryChannelLayer, get_channel_layer

from rooms.concurrency.locks import Locks
from rooms.node.control_messages import AnyControlMessage
from rooms.protocol.errors import Unavailable
from rooms.protocol.events import RoomEvent

logger = logging.getLogger("rooms.bus")

CONTROL = "rooms.control"
# What is published waits no longer for the layer, and after a failure its group tries no sooner again.
PUBLISH_SECONDS = 2
PAUSE_SECONDS = 0.5
# More than this does not wait: hints and their bytes.
MOST_WAITING = 10_000
MOST_WAITING_BYTES = 16 * 1024 * 1024
# Frames of a turn are one message up to so many bytes. Redis ends connections that are behind by megabytes.
MESSAGE_BYTES = 256 * 1024
# Layers forget memberships after a day.
RENEW_SECONDS = 6 * 3600


class BrokerMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event on its way to a group in other processes."""

    event: RoomEvent
    only: list[str] | None = None
    volatile: bool = False


_decode_relay = msgspec.json.Decoder(BrokerMessage)
_decode_notice: msgspec.json.Decoder[AnyControlMessage] = msgspec.json.Decoder(AnyControlMessage)
_encode = msgspec.json.Encoder().encode


class Broker:
    """``on_relay(group, relay)`` and ``on_notice(notice)`` are called with what other processes say."""

    def __init__(
        self,
        alias: str,
        node: str,
        on_relay: Callable[[str, BrokerMessage], None],
        on_notice: Callable[[AnyControlMessage], None],
    ) -> None:
        self._layer: Any = get_channel_layer(alias)
        self._node = node
        self._on_relay = on_relay
        self._on_notice = on_notice
        self._channel = ""
        self._listens = False
        self._answers = True
        # What is to be heard, and what the layer has been told of that.
        self._wanted: set[str] = set()
        self._subscribed: set[str] = set()
        self._changing = Locks()
        self._repairing = asyncio.Lock()
        # By group, what is not sent yet; how much that is, what is being sent included.
        self._waiting: dict[str, deque[bytes]] = {}
        self._count = self._bytes = 0
        self._all_sent = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._renewed = time.monotonic()
        # What was dropped, by name.
        self.dropped: Counter[str] = Counter()

    async def start(self) -> None:
        """Take the seat and begin to listen: as soon as the layer answers, if it does not now. Without
        a seat a bus can still publish."""
        if self._layer is not None:
            self._listens = True
            self._wanted.add(CONTROL)
            await self.repair()

    async def stop(self) -> None:
        """Send what waits, then leave the seat."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.flush()
        for sending in self._sending.values():
            sending.cancel()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)
        leaving, self._wanted = self._wanted, set()
        for group in leaving:
            if not await self._follow(group):
                break

    async def subscribe(self, group: str) -> None:
        """Hear what other processes say to a group; as soon as the layer answers, if it does not now."""
        if not self._listens or group in self._wanted:
            return
        self._wanted.add(group)
        if self._answers:
            await self._follow(group)

    async def unsubscribe(self, group: str, still_wanted: Callable[[], bool] = lambda: False) -> None:
        """Stop hearing a group, unless it is wanted again by the time this is carried out."""
        if group in self._wanted and not still_wanted():
            self._wanted.discard(group)
            if self._answers:
                await self._follow(group)

    async def repair(self) -> None:
        """Do what the layer did not answer to before, and renew the memberships now and then, or when it
        may have forgotten them."""
        if self._repairing.locked():
            return
        async with self._repairing:
            if not self._channel and not await self._take_seat():
                return
            renew = time.monotonic() - self._renewed > RENEW_SECONDS
            if renew:
                self._renewed = time.monotonic()
            for group in self._wanted | self._subscribed if renew else self._wanted ^ self._subscribed:
                if not await self._follow(group, renew):
                    # The others would wait in vain as well.
                    return

    async def _take_seat(self) -> bool:
        try:
            self._channel = await self._in_time(self._layer.new_channel("rooms"))
        except Unavailable:
            return False
        self._tasks.append(asyncio.create_task(self._pump()))
        return True

    async def _follow(self, group: str, renew: bool = False) -> bool:
        """Make the layer's membership what is wanted, and whether that could be done; changes of a group are
        made one after the other."""
        if not self._channel:
            return False
        async with self._changing.of(group):
            try:
                if group in self._wanted and (renew or group not in self._subscribed):
                    await self._in_time(self._layer.group_add(group, self._channel))
                    self._subscribed.add(group)
                elif group in self._subscribed and group not in self._wanted:
                    await self._in_time(self._layer.group_discard(group, self._channel))
                    self._subscribed.discard(group)
            except Unavailable:
                logger.debug("The membership of %s in the channel layer is put off.", group)
                return False
        return True

    def publish(
        self, group: str, event: RoomEvent, *, only: Collection[str] | None = None, volatile: bool = False
    ) -> None:
        """Tell the group's members in other processes; returns at once."""
        if self._is_alone(group):
            return
        relay = BrokerMessage(event=event, only=None if only is None else list(only), volatile=volatile)
        self._put(group, _encode(relay))

    def tell(self, notice: AnyControlMessage) -> None:
        """Tell every other process something; returns at once."""
        if not self._is_alone(CONTROL):
            self._put(CONTROL, _encode(notice))

    def _is_alone(self, group: str) -> bool:
        """Whether nobody but this seat could hear what is said to the group. Channels' own layer
        in memory knows all who listen; what derives from it may do otherwise."""
        if type(self._layer) is not InMemoryChannelLayer:
            return self._layer is None
        listening = self._layer.groups.get(group)
        return not listening or (len(listening) == 1 and self._channel in listening)

    async def flush(self) -> None:
        """Wait until everything that was published has been handed to the layer, or given up."""
        while self._count:
            self._all_sent.clear()
            await self._all_sent.wait()

    def _put(self, group: str, frame: bytes) -> None:
        if self._count >= MOST_WAITING or self._bytes + len(frame) > MOST_WAITING_BYTES:
            self.dropped["hint"] += 1
            return
        self._waiting.setdefault(group, deque()).append(frame)
        self._count += 1
        self._bytes += len(frame)
        # Each group has a task of its own while it has something to say, so that none waits for another.
        if group not in self._sending:
            self._sending[group] = asyncio.create_task(self._send_waiting(group))

    async def _send_waiting(self, group: str) -> None:
        waiting = self._waiting[group]
        try:
            while waiting:
                frames = _message_of(waiting)
                sent = await self._send(group, frames)
                self._count -= len(frames)
                self._bytes -= sum(map(len, frames))
                if not self._count:
                    self._all_sent.set()
                if not sent:
                    await asyncio.sleep(PAUSE_SECONDS)
        finally:
            del self._waiting[group], self._sending[group]

    async def _send(self, group: str, frames: list[bytes]) -> bool:
        message = {"type": "rooms.relay", "node": self._node, "group": group, "frames": frames}
        try:
            await self._in_time(self._layer.group_send(group, message))
        except Unavailable:
            self.dropped["hint"] += len(frames)
            return False
        return True

    async def _pump(self) -> None:
        while True:
            try:
                message = await self._layer.receive(self._channel)
            except Exception:
                logger.exception("The channel layer failed; trying again in a second.")
                self._renewed = -math.inf
                await asyncio.sleep(1)
                continue
            # Nothing of a client's is ever at the top level of a layer message, and the group does
            # not choose a handler: what is in a frame is decoded as data only.
            if message.get("node") == self._node:
                continue
            for frame in message.get("frames", ()):
                try:
                    if message["group"] == CONTROL:
                        self._on_notice(_decode_notice.decode(frame))
                    else:
                        self._on_relay(message["group"], _decode_relay.decode(frame))
                except Exception:
                    logger.exception("A message from another process could not be used.")

    async def _in_time(self, work: Any) -> Any:
        """What the layer answers. Raises Unavailable; the log hears of it once, and of the end."""
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                answer = await work
        except Exception as error:
            if self._answers:
                logger.warning("The channel layer does not answer, other processes hear nothing: %r", error)
            self._answers = False
            raise Unavailable("The channel layer does not answer; try again in a moment.") from error
        if not self._answers:
            logger.warning("The channel layer answers again.")
            # It may have come back without what it knew.
            self._renewed = -math.inf
        self._answers = True
        return answer


def _message_of(waiting: deque[bytes]) -> list[bytes]:
    """Take out the frames that travel next."""
    frames = [waiting.popleft()]
    size = len(frames[0])
    while waiting and size + len(waiting[0]) <= MESSAGE_BYTES:
        frames.append(waiting.popleft())
        size += len(frames[-1])
    return frames
