"""This process's single seat on the Channels layer, through which hubs hear each other.

A process, not each socket, is the member of the layer's groups: layers drop silently above their
capacity, forget memberships after a day, and cost a delivery per member. What is published in one
turn of the event loop travels together. The layer is only a hint: what it loses of a room with
history is fetched from there (``messages.py``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import msgspec
from channels.layers import get_channel_layer

from rooms.engine.locks import Locks
from rooms.errors import Unavailable
from rooms.events import RoomEvent
from rooms.notices import AnyNotice

logger = logging.getLogger("rooms.bus")

CONTROL = "rooms.control"
# Publishing never waits longer for the layer, and a layer that hangs holds up no more than this.
PUBLISH_SECONDS = 2
MOST_WAITING = 10_000
# Layers forget memberships after a day.
RENEW_SECONDS = 6 * 3600


class Relay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event on its way to a group in other processes."""

    event: RoomEvent
    only: list[str] | None = None
    volatile: bool = False


_decode_relay = msgspec.json.Decoder(Relay)
_decode_notice: msgspec.json.Decoder[AnyNotice] = msgspec.json.Decoder(AnyNotice)
_encode = msgspec.json.Encoder().encode


class Bus:
    """``on_relay(group, relay)`` and ``on_notice(notice)`` are called with what other processes say."""

    def __init__(
        self,
        alias: str,
        node: str,
        on_relay: Callable[[str, Relay], None],
        on_notice: Callable[[AnyNotice], None],
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
        self._waiting: dict[str, list[bytes]] = {}
        self._count = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: asyncio.Task[None] | None = None
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
        for group in list(self._wanted):
            await self.unsubscribe(group)

    async def subscribe(self, group: str) -> None:
        """Hear what other processes say to a group; as soon as the layer answers, if it does not now."""
        if not self._listens or group in self._wanted:
            return
        self._wanted.add(group)
        await self._follow(group)

    async def unsubscribe(self, group: str, still_wanted: Callable[[], bool] = lambda: False) -> None:
        """Stop hearing a group, unless it is wanted again by the time this is carried out."""
        if group in self._wanted and not still_wanted():
            self._wanted.discard(group)
            await self._follow(group)

    async def repair(self) -> None:
        """Do what the layer did not answer to before, and renew the memberships now and then."""
        if not self._channel and not await self._take_seat():
            return
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            self._renewed = time.monotonic()
            self._subscribed.clear()
        for group in self._wanted ^ self._subscribed:
            await self._follow(group)

    async def _take_seat(self) -> bool:
        try:
            self._channel = await self._in_time(self._layer.new_channel("rooms"))
        except Unavailable:
            return False
        self._tasks.append(asyncio.create_task(self._pump()))
        return True

    async def _follow(self, group: str) -> None:
        """Make the layer's membership what is wanted; changes of a group are made one after the other."""
        if not self._channel:
            return
        async with self._changing.of(group):
            try:
                if group in self._wanted and group not in self._subscribed:
                    await self._in_time(self._layer.group_add(group, self._channel))
                    self._subscribed.add(group)
                elif group in self._subscribed and group not in self._wanted:
                    await self._in_time(self._layer.group_discard(group, self._channel))
                    self._subscribed.discard(group)
            except Unavailable:
                logger.debug("The membership of %s in the channel layer is put off.", group)

    def publish(
        self, group: str, event: RoomEvent, *, only: Collection[str] | None = None, volatile: bool = False
    ) -> None:
        """Tell the group's members in other processes; returns at once."""
        relay = Relay(event=event, only=None if only is None else list(only), volatile=volatile)
        self._put(group, _encode(relay))

    def tell(self, notice: AnyNotice) -> None:
        """Tell every other process something; returns at once."""
        self._put(CONTROL, _encode(notice))

    async def flush(self) -> None:
        """Wait until everything that was published has been handed to the layer."""
        while self._sending is not None:
            await self._sending

    def _put(self, group: str, frame: bytes) -> None:
        if self._layer is None:
            return
        if self._count >= MOST_WAITING:
            self.dropped["hint"] += 1
            return
        self._waiting.setdefault(group, []).append(frame)
        self._count += 1
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_waiting())

    async def _send_waiting(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting, self._count = self._waiting, {}, 0
                # Side by side, so that no group waits for the layer's answer to another.
                await asyncio.gather(*(self._send(group, frames) for group, frames in waiting.items()))
        finally:
            self._sending = None

    async def _send(self, group: str, frames: list[bytes]) -> None:
        message = {"type": "rooms.relay", "node": self._node, "group": group, "frames": frames}
        try:
            await self._in_time(self._layer.group_send(group, message))
        except Unavailable:
            self.dropped["hint"] += len(frames)

    async def _pump(self) -> None:
        while True:
            try:
                message = await self._layer.receive(self._channel)
            except Exception:
                logger.exception("The channel layer failed; trying again in a second.")
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
            answer = await asyncio.wait_for(work, PUBLISH_SECONDS)
        except Exception as error:
            if self._answers:
                logger.warning("The channel layer does not answer, other processes hear nothing: %r", error)
            self._answers = False
            raise Unavailable("The channel layer does not answer; try again in a moment.") from error
        if not self._answers:
            logger.warning("The channel layer answers again.")
        self._answers = True
        return answer
