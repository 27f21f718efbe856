"""The common part of channel layers without a broker.

A message goes to the channels of this process at once, and by a ``Transport`` to every other process, which
delivers it to its own channels. Nothing is stored: a process that is away misses the messages meanwhile. As
in the layers of Channels, each event loop has its own state.
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

# The number of messages that wait in a channel; beyond it, the oldest are dropped.
CAPACITY = 10_000


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A message to a channel, or to the channels of a group."""

    name: str
    to_group: bool
    message: bytes


_decode_envelopes = msgspec.msgpack.Decoder(list[Envelope])
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Transport(ABC):
    """Sends packed envelopes to other processes; ``deliver`` receives theirs."""

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self.deliver = deliver

    @abstractmethod
    async def listen(self) -> None:
        """Wait until messages of other processes arrive here."""

    @abstractmethod
    async def send(self, envelope: Envelope) -> None:
        """Send to every other process. Raises the error that prevents it."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections; the next call opens new ones."""


def pack(envelopes: list[Envelope]) -> bytes:
    """Encode envelopes for the transport."""
    return _encode(envelopes)


class TransportLayer(BaseChannelLayer):  # type: ignore[misc]
    """A channel layer over a transport; a channel holds ``capacity`` messages.

    ``dropped`` counts the lost messages of full channels and of processes that do not read.
    """

    extensions = ("groups", "flush")

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        super().__init__(capacity=capacity)
        self.dropped: Counter[str] = Counter()
        self._exchanges: dict[asyncio.AbstractEventLoop, _Exchange] = {}

    @abstractmethod
    def transport(self, deliver: Callable[[bytes], None]) -> Transport:
        """Create the transport of the running event loop."""

    # The channel layer's interface -------------------------------------------------------------------

    async def new_channel(self, prefix: str = "specific.") -> str:
        """Create a channel that is read here, and return its name."""
        channel = f"{prefix.rstrip('.')}!{uuid.uuid4().hex}"
        self.require_valid_channel_name(channel)
        exchange = self._exchange()
        await exchange.transport.listen()
        exchange.open(channel)
        return channel

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send to one channel, which any process may read."""
        self.require_valid_channel_name(channel)
        await self._exchange().send(Envelope(channel, False, _encoded(message)))

    async def receive(self, channel: str) -> dict[str, Any]:
        """Wait for the next message of a channel. A cancelled call deletes the channel."""
        self.require_valid_channel_name(channel)
        exchange = self._exchange()
        if channel not in exchange.channels:
            await exchange.transport.listen()
        queue = exchange.open(channel)
        try:
            envelope = await queue.get()
        except asyncio.CancelledError:
            exchange.channels.pop(channel, None)
            raise
        message: dict[str, Any] = _decode(envelope)
        return message

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel that is read here to a group."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        exchange = self._exchange()
        await exchange.transport.listen()
        exchange.open(channel)
        exchange.groups.setdefault(group, set()).add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group, if it is in it."""
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
        """Delete the channels and groups of this event loop, and close its connections."""
        exchange = self._exchanges.pop(asyncio.get_running_loop(), None)
        if exchange is not None:
            await exchange.transport.close()

    def _exchange(self) -> _Exchange:
        loop = asyncio.get_running_loop()
        exchange = self._exchanges.get(loop)
        if exchange is None:
            # Synchronous code creates an event loop for every call.
            for other in [other for other in list(self._exchanges) if other.is_closed()]:
                self._exchanges.pop(other, None)
            exchange = self._exchanges[loop] = _Exchange(self)
        return exchange


class _Exchange:
    """The channels, groups and transport of one event loop."""

    def __init__(self, layer: TransportLayer) -> None:
        self.transport = layer.transport(self._deliver)
        self.channels: dict[str, asyncio.Queue[bytes]] = {}
        self.groups: dict[str, set[str]] = {}
        self._capacity = layer.capacity
        self._dropped = layer.dropped

    def open(self, channel: str) -> asyncio.Queue[bytes]:
        return self.channels.setdefault(channel, asyncio.Queue(self._capacity))

    async def send(self, envelope: Envelope) -> None:
        self._put(envelope)
        await self.transport.send(envelope)

    def _deliver(self, envelopes: bytes) -> None:
        for envelope in _decode_envelopes.decode(envelopes):
            self._put(envelope)

    def _put(self, envelope: Envelope) -> None:
        for name in self.groups.get(envelope.name, ()) if envelope.to_group else (envelope.name,):
            queue = self.channels.get(name)
            if queue is None:
                continue
            if queue.full():
                queue.get_nowait()
                self._dropped["channel"] += 1
            queue.put_nowait(envelope.message)


def _encoded(message: dict[str, Any]) -> bytes:
    if not isinstance(message, dict):
        raise TypeError(f"Expected a dict as the message of a channel layer, got {message!r}.")
    return _encode(message)
