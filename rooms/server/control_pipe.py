"""The line between a worker and its supervisor, from the worker's end.

Lines of text go over it: ``accepting NODE`` from the worker when it serves, and ``died NODE`` to it when
another worker has ended. When the line itself ends, the worker is to end: the supervisor wants it so, or
is gone. The other end is in ``workers.py``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

ACCEPTING = "accepting"
DIED = "died"


class ControlPipe:
    """The inherited socket with this number. Raises OSError where there is none."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    def accepting(self, node: str) -> None:
        """Tell that this worker serves, and the name of its engine."""
        with contextlib.suppress(OSError):
            self._socket.sendall(f"{ACCEPTING} {node}\n".encode())

    def listen(self, died: Callable[[str], None], ended: Callable[[], None]) -> None:
        """Call ``died`` with the name of an engine whose process is gone, and ``ended`` when this process
        is to end. From a thread: also an event loop that hangs is not to outlive its supervisor."""
        threading.Thread(target=self._listen, args=(died, ended), daemon=True, name="lifeline").start()

    def _listen(self, died: Callable[[str], None], ended: Callable[[], None]) -> None:
        # A supervisor that was killed may reset the line.
        with contextlib.suppress(OSError), self._socket, self._socket.makefile() as lines:
            for line in lines:
                word, _, node = line.strip().partition(" ")
                if word == DIED:
                    died(node)
        ended()
