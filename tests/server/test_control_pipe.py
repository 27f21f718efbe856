"""The worker's end of the control pipe."""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from rooms.server.control_pipe import ControlPipe

PATIENCE = 60


@pytest.fixture
def supervisor() -> Iterator[tuple[socket.socket, ControlPipe]]:
    """The supervisor's socket and the worker's pipe."""
    ours, theirs = socket.socketpair()
    pipe = ControlPipe(theirs.detach())
    with ours, pipe._socket:
        ours.settimeout(PATIENCE)
        yield ours, pipe


def test_accepting_is_sent_with_the_id_of_the_node(supervisor: tuple[socket.socket, ControlPipe]) -> None:
    ours, pipe = supervisor
    pipe.send_accepting("node-1")
    assert ours.recv(100) == b"accepting node-1\n"


def test_accepting_is_no_error_when_the_supervisor_is_gone(
    supervisor: tuple[socket.socket, ControlPipe],
) -> None:
    ours, pipe = supervisor
    ours.close()
    pipe.send_accepting("node-1")


def test_dead_nodes_are_reported_before_the_end(supervisor: tuple[socket.socket, ControlPipe]) -> None:
    ours, pipe = supervisor
    events: queue.Queue[str] = queue.Queue()
    pipe.listen(events.put, lambda: events.put("the end"))
    ours.sendall(b"died node-1\nunknown node-2\ndied node-3\n")
    assert [events.get(timeout=PATIENCE) for _ in range(2)] == ["node-1", "node-3"]
    ours.close()
    assert events.get(timeout=PATIENCE) == "the end"


def test_reset_connection_is_the_end() -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        ControlPipe(theirs.detach()).listen(lambda node_id: None, ended.set)
        # With this option a close resets the connection, as the kernel does for a killed process.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ours.close()
    assert ended.wait(PATIENCE)


def test_descriptor_of_no_socket_is_refused() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    descriptor = theirs.fileno()
    theirs.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        ControlPipe(descriptor)
