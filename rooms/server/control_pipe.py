"""The worker's end of its connection to the supervisor.

Lines of text: ``accepting NODE`` from the worker once it serves, ``died NODE`` to it when another worker has
ended. End of file asks the worker to shut down; it also comes when the supervisor itself has ended. The
supervisor's end is in ``supervisor.py``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

ACCEPTING = "accepting"
DIED = "died"


class ControlPipe:
    """Wraps the inherited socket with this file descriptor.

    Raises OSError if there is none.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    def send_accepting(self, node_id: str) -> None:
        """Report that this worker accepts connections, and the id of its node."""
        with contextlib.suppress(OSError):
            self._socket.sendall(f"{ACCEPTING} {node_id}\n".encode())

    def listen(self, on_node_died: Callable[[str], None], on_end: Callable[[], None]) -> None:
        """Read in a thread; call ``on_node_died`` for each dead node, then ``on_end``.

        A thread, so that a process whose event loop hangs does not outlive its supervisor either.
        """
        threading.Thread(
            target=self._read, args=(on_node_died, on_end), daemon=True, name="control-pipe"
        ).start()

    def _read(self, on_node_died: Callable[[str], None], on_end: Callable[[], None]) -> None:
        # A killed supervisor may reset the connection.
        with contextlib.suppress(OSError), self._socket, self._socket.makefile() as lines:
            for line in lines:
                kind, _, node_id = line.strip().partition(" ")
                if kind == DIED:
                    on_node_died(node_id)
        on_end()
