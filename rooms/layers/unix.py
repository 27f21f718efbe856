"""A channel layer between the processes of one machine, without a service.

Each process that reads a channel listens on a Unix socket in a shared folder, and each process that sends
has a connection to every socket there. (Streams, not datagrams: Linux may queue no more than ten datagrams
for a busy process, and a burst would be lost.) A process that does not read loses the messages above
``MAX_BYTES`` and does not block the others. Only the user of the processes may access the folder. A cleaner
of temporary files may remove files there: a process whose socket is gone creates it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
import stat
import struct
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from rooms.layers.base import CAPACITY, Envelope, Transport, TransportLayer, pack

logger = logging.getLogger("rooms.layers")

# The maximum of a message, and of all messages that wait for one other process.
MAX_BYTES = 4 * 1024 * 1024
# Of the file of a socket; the path of a socket has about a hundred bytes at most.
NAME_LENGTH = 16
PATH_LENGTH = 100
# The interval at which a process checks that its socket exists.
CHECK_SECONDS = 2.0
# At the end, waiting messages are sent within this time.
CLOSE_TIMEOUT = 1.0
_HEAD = struct.Struct(">I")


class LocalLayer(TransportLayer):
    """Uses sockets in ``folder``, which is created if it is missing.

    By default it is in the folder for temporary files (with PrivateTmp, a systemd unit has its own), with a
    name made of the site's folder, database, secret key and user. Raises ImproperlyConfigured without Unix
    sockets, or if other users may access the folder.
    """

    def __init__(self, *, folder: str | Path | None = None, capacity: int = CAPACITY) -> None:
        super().__init__(capacity=capacity)
        if not hasattr(socket, "AF_UNIX"):
            raise ImproperlyConfigured("LocalLayer needs Unix sockets; this platform has none.")
        self.folder = ensure_private(Path(folder) if folder is not None else default_folder())

    def transport(self, deliver: Callable[[bytes], None]) -> Transport:
        return _Sockets(self, deliver)


def default_folder() -> Path:
    """Return the default folder of this site."""
    database = settings.DATABASES["default"]["NAME"]
    site = [settings.SECRET_KEY, getattr(settings, "BASE_DIR", ""), database, os.geteuid()]
    digest = hashlib.blake2b("\0".join(map(str, site)).encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"rooms-{digest}"


def ensure_private(folder: Path) -> Path:
    """Create the folder if it is missing.

    Raises ImproperlyConfigured if other users may access it.
    """
    if len(os.fsencode(folder)) > PATH_LENGTH - NAME_LENGTH:
        raise ImproperlyConfigured(
            f"Expected a folder path of at most {PATH_LENGTH - NAME_LENGTH} bytes, got {folder}."
        )
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ImproperlyConfigured(
            f"Expected a folder of this user with the mode 700, got {folder}, which other users may access."
        )
    return folder


class _Peer(asyncio.Protocol):
    """The sending end of a connection to another process, which sends nothing back."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


class _Sockets(Transport):
    """Sends and receives over sockets.

    A task closes them: they end with their event loop.
    """

    def __init__(self, layer: LocalLayer, deliver: Callable[[bytes], None]) -> None:
        super().__init__(deliver)
        self._folder = layer.folder
        self._dropped = layer.dropped
        self._name = uuid.uuid4().hex[:NAME_LENGTH]
        self._server: asyncio.Server | None = None
        self._peers: dict[str, tuple[asyncio.WriteTransport, _Peer]] = {}
        self._lock = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        async with self._lock:
            socket_file = ensure_private(self._folder) / self._name
            if self._server is not None:
                if socket_file.exists():
                    return
                logger.warning("%s was removed; messages of other processes were lost.", socket_file)
                self._server.close()
            self._start_keeper()
            listener = socket.socket(socket.AF_UNIX)
            # A socket that does not listen yet looks like that of a dead process.
            hidden = self._folder / f".{self._name}"
            listener.bind(str(hidden))
            self._server = await asyncio.start_unix_server(self._receive, sock=listener)
            hidden.rename(socket_file)

    async def send(self, envelope: Envelope) -> None:
        envelopes = pack([envelope])
        if len(envelopes) > MAX_BYTES:
            raise ValueError(f"Expected a message of at most {MAX_BYTES} bytes, got {len(envelopes)}.")
        await self._connect_all()
        for transport, _ in self._peers.values():
            if transport.get_write_buffer_size() + len(envelopes) > MAX_BYTES:
                self._dropped["process"] += 1
            else:
                transport.write(_HEAD.pack(len(envelopes)) + envelopes)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Deliver the messages of one other process, until it ends."""
        # The task is cancelled when its loop ends, which asyncio would report as an error.
        endings = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        with contextlib.suppress(*endings), contextlib.closing(writer):
            while True:
                (size,) = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                if size > MAX_BYTES:
                    break
                envelopes = await reader.readexactly(size)
                try:
                    self.deliver(envelopes)
                except Exception:
                    logger.exception("Ignored an invalid message of another process.")

    async def _connect_all(self) -> None:
        """Connect to every other process that listens."""
        if self._all_connected():
            return
        async with self._lock:
            if self._all_connected():
                return
            self._start_keeper()
            names = self._names()
            for name in list(self._peers):
                if name not in names or self._peers[name][0].is_closing():
                    self._peers.pop(name)[0].close()
            for name in names - self._peers.keys():
                await self._connect(name)

    async def _connect(self, name: str) -> None:
        path = self._folder / name
        try:
            self._peers[name] = await asyncio.get_running_loop().create_unix_connection(_Peer, str(path))
        except ConnectionRefusedError:
            # No process listens: it was killed.
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass

    def _all_connected(self) -> bool:
        peers = self._peers
        return self._names() == peers.keys() and not any(
            transport.is_closing() for transport, _ in peers.values()
        )

    def _names(self) -> set[str]:
        names = (path.name for path in ensure_private(self._folder).iterdir())
        return {name for name in names if name[0] != "." and name != self._name}

    async def _check(self) -> None:
        try:
            await self.listen()
        except Exception as error:
            logger.error("Cannot receive messages of other processes: %s", error)

    def _start_keeper(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        try:
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                if self._server is not None:
                    await self._check()
        finally:
            if self._server is not None:
                (self._folder / self._name).unlink(missing_ok=True)
                self._server.close()
            for transport, _ in self._peers.values():
                transport.close()
            # Waiting messages are still sent.
            if ends := [peer.lost for _, peer in self._peers.values()]:
                await asyncio.wait(ends, timeout=CLOSE_TIMEOUT)
