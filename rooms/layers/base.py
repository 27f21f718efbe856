"""What channel layers without a broker have in common: channels live in the process that reads them.

What is sent goes to this process's own channels at once and by a ``Carrier`` to every other process, each
of which gives it to those of its channels that it is for. Nothing is kept anywhere: a process that is
away misses what is said meanwhile. As the layers of Channels do, each event loop has state of its own.
"""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from channels.layers import BaseChannelLayer

# Messages that wait in a channel; beyond it the oldest are dropped.
CAPACITY = 10_000


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A message on its way to a channel or to a group's channels."""

    name: str
    to_group: bool
    message: bytes


_decode_letters = msgspec.msgpack.Decoder(list[Envelope])
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Transport(ABC):
    """The way to the other processes. ``deliver`` takes what ``pack`` made there."""

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self.deliver = deliver

    @abstractmethod
    async def listen(self) -> None:
        """Wait until what others send arrives here."""

    @abstractmethod
    async def carry(self, letter: Envelope) -> None:
        """Send to every other process. Raises what keeps it from being sent."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections; the next call makes new ones."""


def pack(letters: list[Envelope]) -> bytes:
    """Letters as they travel."""
    return _encode(letters)


class TransportLayer(BaseChannelLayer):  # type: ignore[misc]
    """A channel layer over a carrier. ``capacity``: messages that wait in one channel.

    ``dropped`` counts what was lost on the way, by the place where it was.
    """

    extensions = ("groups", "flush")

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        super().__init__(capacity=capacity)
        self.dropped: Counter[str] = Counter()
        self._exchanges: dict[asyncio.AbstractEventLoop, _Exchange] = {}

    @abstractmethod
    def carrier(self, deliver: Callable[[bytes], None]) -> Transport:
        """The way to the other processes from the running event loop."""

    # The channel layer's interface -------------------------------------------------------------------

    async def new_channel(self, prefix: str = "specific.") -> str:
        """The name of a channel that is read here."""
        channel = f"{prefix.rstrip('.')}!{uuid.uuid4().hex}"
        self.require_valid_channel_name(channel)
        exchange = self._exchange()
        await exchange.carrier.listen()
        exchange.open(channel)
        return channel

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send to one channel, wherever it is read."""
        self.require_valid_channel_name(channel)
        await self._exchange().send(Envelope(channel, False, _encoded(message)))

    async def receive(self, channel: str) -> dict[str, Any]:
        """The next message of a channel. Whoever stops waiting for it ends the channel."""
        self.require_valid_channel_name(channel)
        exchange = self._exchange()
        if channel not in exchange.channels:
            await exchange.carrier.listen()
        queue = exchange.open(channel)
        try:
            letter = await queue.get()
        except asyncio.CancelledError:
            exchange.channels.pop(channel, None)
            raise
        message: dict[str, Any] = _decode(letter)
        return message

    async def group_add(self, group: str, channel: str) -> None:
        """Have a channel that is read here hear what is sent to a group."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        exchange = self._exchange()
        await exchange.carrier.listen()
        exchange.open(channel)
        exchange.groups.setdefault(group, set()).add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Have a channel not hear a group any more; not having heard it is no error."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        groups = self._exchange().groups
        members = groups.get(group, set())
        members.discard(channel)
        if not members:
            groups.pop(group, None)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send to every channel of a group, in every process."""
        self.require_valid_group_name(group)
        await self._exchange().send(Envelope(group, True, _encoded(message)))

    async def flush(self) -> None:
        """Forget this event loop's channels and groups, and let go of its connections."""
        exchange = self._exchanges.pop(asyncio.get_running_loop(), None)
        if exchange is not None:
            await exchange.carrier.close()

    def _exchange(self) -> _Exchange:
        loop = asyncio.get_running_loop()
        exchange = self._exchanges.get(loop)
        if exchange is None:
            # Synchronous code makes an event loop for every call.
            for other in [other for other in list(self._exchanges) if other.is_closed()]:
                self._exchanges.pop(other, None)
            exchange = self._exchanges[loop] = _Exchange(self)
        return exchange


class _Exchange:
    """One event loop's channels, groups and carrier."""

    def __init__(self, layer: TransportLayer) -> None:
        self.carrier = layer.carrier(self._deliver)
        self.channels: dict[str, asyncio.Queue[bytes]] = {}
        self.groups: dict[str, set[str]] = {}
        self._capacity = layer.capacity
        self._dropped = layer.dropped

    def open(self, channel: str) -> asyncio.Queue[bytes]:
        return self.channels.setdefault(channel, asyncio.Queue(self._capacity))

    async def send(self, letter: Envelope) -> None:
        self._put(letter)
        await self.carrier.carry(letter)

    def _deliver(self, letters: bytes) -> None:
        for letter in _decode_letters.decode(letters):
            self._put(letter)

    def _put(self, letter: Envelope) -> None:
        for name in self.groups.get(letter.name, ()) if letter.to_group else (letter.name,):
            queue = self.channels.get(name)
            if queue is None:
                continue
            if queue.full():
                queue.get_nowait()
                self._dropped["channel"] += 1
            queue.put_nowait(letter.message)


def _encoded(message: dict[str, Any]) -> bytes:
    if not isinstance(message, dict):
        raise TypeError(f"A message of a channel layer is {message!r}. Lawful: a dict.")
    return _encode(message)
