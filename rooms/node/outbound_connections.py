"""Other services that extensions dial: which there are, and how long they are dialled.

How a service is dialled and served is known to a storey above: ``keep`` is that of ``node/outbound.py``, handed
in by ``apps.py``. A process that serves no sockets dials nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from rooms.conf import PROTOCOL_NAMES, load_protocol
from rooms.extensions import Extension
from rooms.hub.connection import Connection
from rooms.protocol.errors import CloseCode

if TYPE_CHECKING:
    from rooms.node.node import Node

MOST_DIALS = 16
# One who has been hung up on gets so long to answer the close; then the connection is cut.
HANG_UP_SECONDS = 5.0


class OutboundConnection:
    """A service that is dialled until it is hung up on. ``connection`` is the one that there is now."""

    def __init__(self, owner: Extension, url: str, protocol: str, headers: Mapping[str, str]) -> None:
        self.owner = owner
        self.url = url
        self.protocol = protocol
        self.headers = dict(headers)
        self.connection: Connection | None = None
        self.closed = False
        self.task: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        parts = urlsplit(self.url)
        # Without what may be a secret: the user before the host and the query.
        return f"<Dial {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}>"

    @property
    def number(self) -> int | None:
        return self.connection.number or None if self.connection is not None else None

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """As ``close``, in the engine's event loop."""
        self.closed = True
        if self.task is None or self.task.done():
            return
        if self.connection is None:
            self.task.cancel()
        else:
            self.connection.close(CloseCode.NORMAL, "Good bye.")
            self._loop.call_later(HANG_UP_SECONDS, self.task.cancel)


class OutboundConnections:
    """Those of all extensions of this process."""

    keep: ClassVar[Callable[[Node, OutboundConnection], Awaitable[None]] | None] = None

    def __init__(self) -> None:
        self._dials: list[OutboundConnection] = []
        self._node: Node | None = None

    def open(self, node: Node) -> None:
        """From now on what is dialled is really dialled."""
        self._node = node

    def dial(
        self, owner: Extension, url: str, *, protocol: str, headers: Mapping[str, str]
    ) -> OutboundConnection:
        """Begin to dial. Raises ValueError, RuntimeError: see ``Extension.open_connection``."""
        _check(url, protocol)
        self._dials = [dial for dial in self._dials if not dial.closed]
        if sum(dial.owner.application == owner.application for dial in self._dials) >= MOST_DIALS:
            raise RuntimeError(f"{owner.application} has dialled {MOST_DIALS} services, which are the most.")
        dial = OutboundConnection(owner, url, protocol, headers)
        self._dials.append(dial)
        keep = OutboundConnections.keep
        if self._node is not None and keep is not None:
            dial.task = asyncio.ensure_future(keep(self._node, dial))
        return dial

    def hang_up(self, connection: Connection) -> None:
        """If this is a connection that was dialled, it is not dialled again."""
        for dial in self._dials:
            if dial.connection is connection:
                dial.end()

    def hang_up_all(self, owner: Extension) -> None:
        """The extension has come to its end."""
        for dial in self._dials:
            if dial.owner is owner:
                dial.end()

    async def close(self) -> None:
        """Hang up on everybody and wait until they are gone."""
        self._node = None
        for dial in self._dials:
            dial.end()
        if tasks := [dial.task for dial in self._dials if dial.task is not None]:
            await asyncio.wait(tasks)


def _check(url: object, protocol: str) -> None:
    # One connection is in one application here.
    spoken = [name for name in PROTOCOL_NAMES if not load_protocol(name).options.multiplexes_applications]
    if protocol not in spoken:
        raise ValueError(f"There is no protocol {protocol!r} to dial with. Lawful: {', '.join(spoken)}.")
    if not isinstance(url, str) or not _is_address(url):
        raise ValueError(f"{url!r} cannot be dialled. Lawful: ws://host:port/path or wss://host:port/path.")
    if find_spec("websockets") is None:
        raise RuntimeError('To dial, the package websockets is needed: pip install "django-rooms[server]".')


def _is_address(url: str) -> bool:
    """Whether it is the address of a WebSocket."""
    if any(character <= " " or character == "\x7f" for character in url):
        return False
    try:
        parts = urlsplit(url)
        return bool(
            parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0 and not parts.fragment
        )
    except ValueError:
        return False
