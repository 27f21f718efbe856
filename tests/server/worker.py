"""A worker that serves nobody, for tests of its supervisor: it writes down what happens to it.

    python worker.py FOLDER --supervisor DESCRIPTOR

A file `broken` in the folder keeps it from starting, a file `stubborn` from ending. SIGUSR1 ends it in order.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from rooms.server.control_pipe import ControlPipe

folder = Path(sys.argv[1])


def write(what: str) -> None:
    """One line of the log that all workers share."""
    with (folder / "log").open("a") as log:
        log.write(f"{os.getpid()} {what}\n")


def main() -> None:
    """Until the supervisor has it end."""
    if (folder / "broken").exists():
        sys.exit(3)
    lifeline = ControlPipe(int(sys.argv[3]))
    ended = threading.Event()
    signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(0))
    lifeline.listen(lambda node: write(f"heard of {node}"), ended.set)
    write("serves")
    lifeline.accepting(f"node-{os.getpid()}")
    ended.wait()
    write("is told to end")
    if (folder / "stubborn").exists():
        threading.Event().wait()


main()
