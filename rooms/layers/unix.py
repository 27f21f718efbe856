"""A channel layer between the processes of one machine, with no service beside them.

Each process that reads a channel listens on a Unix socket in a folder that they share, and each that
sends has a connection to every socket there. (Streams and not datagrams: of those Linux may keep no
more than ten for a process that is busy, and a burst would be lost.) A process that does not read what
it is sent loses what comes above ``MOST_BYTES``, and holds up nobody. Only the processes' own user may
enter the folder. Files there may be removed by others, as old ones are where temporary files are kept: a
process whose socket is gone makes it anew.
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

# What may wait for one other process, and the longest message.
MOST_BYTES = 4 * 1024 * 1024
# Of a socket's file; paths of sockets have hardly more than a hundred bytes.
NAME_LENGTH = 16
PATH_LENGTH = 100
# A process looks so often whether its socket is where the others look for it.
LOOK_SECONDS = 2.0
# At the end what waits is still sent, for so long.
END_SECONDS = 1.0
_HEAD = struct.Struct(">I")


class LocalLayer(TransportLayer):
    """``folder``: where the processes of this site meet; it is made when it is not there. By default it is
    in the folder for temporary files, which for a systemd unit with PrivateTmp is one of its own, and named
    after the site's folder, database, secret key and user.

    Raises ImproperlyConfigured where there are no Unix sockets, or others may enter the folder.
    """

    def __init__(self, *, folder: str | Path | None = None, capacity: int = CAPACITY) -> None:
        super().__init__(capacity=capacity)
        if not hasattr(socket, "AF_UNIX"):
            raise ImproperlyConfigured("LocalLayer needs Unix sockets, which this platform has not.")
        self.folder = own(Path(folder) if folder is not None else default_folder())

    def carrier(self, deliver: Callable[[bytes], None]) -> Transport:
        return _Sockets(self, deliver)


def default_folder() -> Path:
    """The folder of this site's processes."""
    database = settings.DATABASES["default"]["NAME"]
    site = [settings.SECRET_KEY, getattr(settings, "BASE_DIR", ""), database, os.geteuid()]
    named = hashlib.blake2b("\0".join(map(str, site)).encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"rooms-{named}"


def own(folder: Path) -> Path:
    """The folder, made if it is missing. Raises ImproperlyConfigured unless it is this user's alone."""
    if len(os.fsencode(folder)) > PATH_LENGTH - NAME_LENGTH:
        raise ImproperlyConfigured(
            f"The processes are to meet in {folder}. Lawful: {PATH_LENGTH - NAME_LENGTH} bytes at most."
        )
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ImproperlyConfigured(
            f"The processes are to meet in {folder}, which others may enter. Lawful: a folder of this user "
            "with the mode 700."
        )
    return folder


class _Other(asyncio.Protocol):
    """The sending end of a connection to another process, which never answers."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


class _Sockets(Transport):
    """The socket and the connections are closed by a task: they end with their event loop."""

    def __init__(self, layer: LocalLayer, deliver: Callable[[bytes], None]) -> None:
        super().__init__(deliver)
        self._folder = layer.folder
        self._dropped = layer.dropped
        self._name = uuid.uuid4().hex[:NAME_LENGTH]
        self._server: asyncio.Server | None = None
        self._others: dict[str, tuple[asyncio.WriteTransport, _Other]] = {}
        self._changing = asyncio.Lock()
        self._staying: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        async with self._changing:
            socket_file = own(self._folder) / self._name
            if self._server is not None:
                if socket_file.exists():
                    return
                logger.warning("Somebody removed %s; other processes were not heard.", socket_file)
                self._server.close()
            self._stay()
            listener = socket.socket(socket.AF_UNIX)
            # A socket that does not listen yet looks like one that a dead process left behind.
            hidden = self._folder / f".{self._name}"
            listener.bind(str(hidden))
            self._server = await asyncio.start_unix_server(self._hear, sock=listener)
            hidden.rename(socket_file)

    async def carry(self, letter: Envelope) -> None:
        letters = pack([letter])
        if len(letters) > MOST_BYTES:
            raise ValueError(f"A message has {len(letters)} bytes. Lawful: {MOST_BYTES} at most.")
        await self._find()
        for transport, _ in self._others.values():
            if transport.get_write_buffer_size() + len(letters) > MOST_BYTES:
                self._dropped["process"] += 1
            else:
                transport.write(_HEAD.pack(len(letters)) + letters)

    async def close(self) -> None:
        if self._staying is not None:
            self._staying.cancel()
            await asyncio.gather(self._staying, return_exceptions=True)

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Deliver what one other process sends, until it ends."""
        # asyncio reports it as an error when such a task is cancelled, which is how its loop ends.
        endings = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        with contextlib.suppress(*endings), contextlib.closing(writer):
            while True:
                (size,) = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                if size > MOST_BYTES:
                    break
                letters = await reader.readexactly(size)
                try:
                    self.deliver(letters)
                except Exception:
                    logger.exception("What another process sent could not be used.")

    async def _find(self) -> None:
        """Have a connection to every other process that listens."""
        if self._all_found():
            return
        async with self._changing:
            if self._all_found():
                return
            self._stay()
            names = self._names()
            for name in list(self._others):
                if name not in names or self._others[name][0].is_closing():
                    self._others.pop(name)[0].close()
            for name in names - self._others.keys():
                await self._meet(name)

    async def _meet(self, name: str) -> None:
        path = self._folder / name
        try:
            self._others[name] = await asyncio.get_running_loop().create_unix_connection(_Other, str(path))
        except ConnectionRefusedError:
            # Nobody listens: its process was killed.
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass

    def _all_found(self) -> bool:
        others = self._others
        return self._names() == others.keys() and not any(way.is_closing() for way, _ in others.values())

    def _names(self) -> set[str]:
        names = (path.name for path in own(self._folder).iterdir())
        return {name for name in names if name[0] != "." and name != self._name}

    async def _look(self) -> None:
        try:
            await self.listen()
        except Exception as error:
            logger.error("Other processes are not heard: %s", error)

    def _stay(self) -> None:
        if self._staying is None:
            self._staying = asyncio.create_task(self._stay_until_cancelled())

    async def _stay_until_cancelled(self) -> None:
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                if self._server is not None:
                    await self._look()
        finally:
            if self._server is not None:
                (self._folder / self._name).unlink(missing_ok=True)
                self._server.close()
            for transport, _ in self._others.values():
                transport.close()
            # What waits is still sent.
            if ends := [other.lost for _, other in self._others.values()]:
                await asyncio.wait(ends, timeout=END_SECONDS)
