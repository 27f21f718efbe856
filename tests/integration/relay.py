"""A TCP relay between clients and a server that a test can interrupt."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Relay:
    """Relays all connections to ``port``, except between ``cut`` and ``mend``."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._whole = True
        self._lock = threading.Lock()  # so that no connection is missed by a cut
        self._ends: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._listen)

    def cut(self) -> None:
        """End all connections, and new ones at once."""
        with self._lock:
            self._whole = False
            for end in self._ends:
                hang_up(end)

    def mend(self) -> None:
        """Relay new connections again."""
        self._whole = True

    def remove(self) -> None:
        """Stop relaying for good."""
        self.cut()
        hang_up(self._listener)
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _listen(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._carry, client)

    def _carry(self, client: socket.socket) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            with self._lock:
                if not self._whole:
                    return
                self._ends |= {client, server}
            back = self._start(relay, server, client)
            relay(client, server)
            back.join()
            with self._lock:
                self._ends -= {client, server}


def relay(source: socket.socket, target: socket.socket) -> None:
    """Relay bytes until one of the two sockets ends, then end both."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    hang_up(source)
    hang_up(target)


def hang_up(end: socket.socket) -> None:
    """End a connection in both directions, which wakes up threads that wait for it."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
