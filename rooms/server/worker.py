"""One worker as its supervisor sees it: a process that serves, and the line to it (``lifeline.py``)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterable, Sequence

from rooms.server.control_pipe import ACCEPTING, DIED


class Worker:
    """A process that has yet to be started. While it is ``wanted``, another takes its place when it ends.
    ``node`` is its engine's name once it serves, ``how`` says how it ended."""

    def __init__(self, command: Sequence[str], *, wanted: bool = True) -> None:
        self.wanted = wanted
        self.node: str | None = None
        self.how = ""
        # Whether it serves; False when it ended before it did.
        self.served: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._line: asyncio.StreamWriter | None = None
        self._leaving = False

    def __str__(self) -> str:
        return f"Worker {self._process.pid}" if self._process is not None else "A worker"

    @property
    def is_serving(self) -> bool:
        """Whether it serves, and was not told to end."""
        return self.node is not None and not self._leaving

    @property
    def is_orderly(self) -> bool:
        """Whether it ended as it was told to; one that did not serve yet has nobody to take leave of."""
        return self.node is None or (self._process is not None and self._process.returncode == 0)

    async def run(self, serves: Callable[[Worker], None]) -> None:
        """From its start to its end; ``serves`` is called when it serves."""
        try:
            process, lines = await self._start()
        except OSError as error:
            self.how = f"could not be started: {error}"
        else:
            hearing = asyncio.create_task(self._hear(lines, serves))
            self.how = _in_words(await process.wait())
            hearing.cancel()
        finally:
            if self._line is not None:
                self._line.close()
            if not self.served.done():
                self.served.set_result(False)
            self.gone.set()

    def tell_died(self, nodes: Iterable[str]) -> None:
        """Tell it that other engines' processes are gone."""
        if self._line is not None:
            # Not by `writelines`, which newer Pythons' transports do not take empty.
            self._line.write("".join(f"{DIED} {node}\n" for node in nodes).encode())

    def end(self) -> None:
        """Have it take leave of its clients and end; another does not take its place."""
        self.wanted, self._leaving = False, True
        if self.node is not None and self._line is not None:
            # Not by a signal: a service manager may have sent it one, and the second ends it at once.
            with contextlib.suppress(OSError):
                self._line.write_eof()
        else:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.wanted, self._leaving = False, True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _start(self) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
        ours, theirs = socket.socketpair()
        with theirs:
            lines, self._line = await asyncio.open_connection(sock=ours)
            number = theirs.fileno()
            # In a group of its own: Ctrl-C at a terminal is the supervisor's to hear.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, "--supervisor", str(number), pass_fds=[number], process_group=0
            )
        if self._leaving:
            self.kill()
        return self._process, lines

    async def _hear(self, lines: asyncio.StreamReader, serves: Callable[[Worker], None]) -> None:
        async for line in lines:
            word, _, node = line.decode().strip().partition(" ")
            if word == ACCEPTING:
                self.node = node
                self.served.set_result(True)
                serves(self)


def _in_words(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
