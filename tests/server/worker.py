"""A fake worker for the tests of the supervisor, which logs its events.

    python worker.py DIRECTORY --supervisor DESCRIPTOR

A file `broken` in the directory prevents it from starting, a file `stubborn` from exiting. SIGUSR1 makes
it exit.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from rooms.server.control_pipe import ControlPipe

directory = Path(sys.argv[1])


def log(event: str) -> None:
    """Append a line to the log that all workers share."""
    with (directory / "log").open("a") as lines:
        lines.write(f"{os.getpid()} {event}\n")


def main() -> None:
    """Run until the supervisor closes the control pipe."""
    if (directory / "broken").exists():
        sys.exit(3)
    control_pipe = ControlPipe(int(sys.argv[3]))
    ended = threading.Event()
    signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(0))
    control_pipe.listen(lambda node_id: log(f"{node_id} died"), ended.set)
    log("serves")
    control_pipe.send_accepting(f"node-{os.getpid()}")
    ended.wait()
    log("shuts down")
    if (directory / "stubborn").exists():
        threading.Event().wait()


main()
