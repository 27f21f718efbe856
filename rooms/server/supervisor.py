"""The supervisor of ``runrooms --workers``: keeps the workers running.

A worker that exits is replaced, whatever the reason. SIGHUP replaces all workers one after the other, SIGTERM
and SIGINT shut them all down. Each worker receives the ids of nodes that have died, so that their users are
removed without waiting for a lease to expire (``presence/``). The worker's end is in ``control_pipe.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from rooms.server.control_pipe import ACCEPTING, DIED

logger = logging.getLogger("rooms.server")

# A worker that exits before it serves is replaced after a delay, which doubles each time up to the maximum.
RESTART_DELAY = 0.2
MAX_RESTART_DELAY = 3.0
# A new worker that does not serve within this time stops a rolling restart.
START_TIMEOUT = 60.0
# Workers exit by themselves at most 24 seconds after the shutdown request.
SHUTDOWN_TIMEOUT = 24.5


class Supervisor:
    """Runs the command as ``number`` workers; calls ``on_serving`` when all serve."""

    def __init__(self, command: Sequence[str], number: int, on_serving: Callable[[], None]) -> None:
        self._command = command
        self._number = number
        self._on_serving: Callable[[], None] | None = on_serving
        self._workers: set[Worker] = set()
        self._slots: set[asyncio.Task[None]] = set()
        # The nodes that died last: a worker that received such an id may have been about to die itself.
        self._died: deque[str] = deque(maxlen=2 * number)
        self._shutdown = asyncio.Event()
        self._restart = asyncio.Event()
        self._is_clean = True

    async def run(self) -> bool:
        """Run until SIGTERM or SIGINT.

        Returns whether every worker then shut down cleanly.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._handle_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._restart.set)
        for _ in range(self._number):
            self._add(Worker(self._command))
        restarts = asyncio.create_task(self._run_rolling_restarts())
        await self._shutdown.wait()
        restarts.cancel()
        for worker in self._workers:
            worker.stop()
        _, late = await asyncio.wait(self._slots, timeout=SHUTDOWN_TIMEOUT)
        if late:
            logger.error(
                "%d workers still run %g seconds after the shutdown signal; they are killed.",
                len(late),
                SHUTDOWN_TIMEOUT,
            )
            self._kill()
            await asyncio.wait(late)
        return self._is_clean

    def _handle_signal(self, number: signal.Signals) -> None:
        """Shut the workers down at the first signal, kill everything at the second."""
        if self._shutdown.is_set():
            self._kill()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._shutdown.set()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    # Slots -------------------------------------------------------------------------------------------

    def _add(self, worker: Worker) -> None:
        self._workers.add(worker)
        slot = asyncio.create_task(self._run_slot(worker))
        self._slots.add(slot)
        slot.add_done_callback(self._slots.discard)

    async def _run_slot(self, worker: Worker) -> None:
        """Run one worker after the other, until one exits that is not to be replaced."""
        delay = 0.0
        while True:
            await worker.run(self._handle_serving)
            self._workers.discard(worker)
            self._report_death(worker)
            if not worker.respawn:
                self._is_clean = self._is_clean and (worker.exited_cleanly or not self._shutdown.is_set())
                return
            delay = (
                0.0 if worker.node_id is not None else min(max(2 * delay, RESTART_DELAY), MAX_RESTART_DELAY)
            )
            when = f"in {delay:g} seconds" if delay else "now"
            logger.error("%s %s. A replacement is started %s.", worker, worker.exit_reason, when)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._shutdown.wait(), delay)
                return
            worker = Worker(self._command)
            self._workers.add(worker)

    def _handle_serving(self, worker: Worker) -> None:
        logger.info("%s serves.", worker)
        worker.send_died(self._died)
        if self._on_serving is not None and len(self._serving_workers()) == self._number:
            self._on_serving()
            self._on_serving = None

    def _report_death(self, dead: Worker) -> None:
        """Send the id of a dead worker's node to the workers that serve."""
        if dead.node_id is not None:
            self._died.append(dead.node_id)
            for worker in self._serving_workers():
                worker.send_died([dead.node_id])

    def _serving_workers(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.is_serving]

    # Rolling restart ---------------------------------------------------------------------------------

    async def _run_rolling_restarts(self) -> None:
        """Replace all workers on each request; once more if a request arrived meanwhile."""
        while await self._restart.wait():
            self._restart.clear()
            for old in list(self._workers):
                if old in self._workers and not await self._replace(old):
                    break
            else:
                logger.info("All workers have been replaced.")

    async def _replace(self, old: Worker) -> bool:
        """Start a new worker, stop the old one once it serves; returns whether it does."""
        new = Worker(self._command, respawn=False)
        self._add(new)
        serves = False
        with contextlib.suppress(TimeoutError):
            serves = await asyncio.wait_for(asyncio.shield(new.started), START_TIMEOUT)
        if not serves:
            new.kill()
            await new.exited.wait()
            logger.error("%s %s before it served. The other workers stay.", new, new.exit_reason)
            return False
        # The old worker may have exited meanwhile; its slot has then started a replacement already.
        new.respawn = old in self._workers
        surplus = old if new.respawn else new
        surplus.stop()
        await surplus.exited.wait()
        return True


class Worker:
    """One worker process and the supervisor's end of its control pipe.

    ``node_id`` is set once it serves. With ``respawn`` another worker is started when it exits.
    """

    def __init__(self, command: Sequence[str], *, respawn: bool = True) -> None:
        self.respawn = respawn
        self.node_id: str | None = None
        self.exit_reason = ""
        # Whether it serves; False when it exited before.
        self.started: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.exited = asyncio.Event()
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._pipe: asyncio.StreamWriter | None = None
        self._is_stopping = False

    def __str__(self) -> str:
        return f"Worker {self._process.pid}" if self._process is not None else "A worker"

    @property
    def is_serving(self) -> bool:
        """Whether it serves and has no shutdown request."""
        return self.node_id is not None and not self._is_stopping

    @property
    def exited_cleanly(self) -> bool:
        """Whether it exited as requested, or had no clients because it did not serve yet."""
        return self.node_id is None or (self._process is not None and self._process.returncode == 0)

    async def run(self, on_serving: Callable[[Worker], None]) -> None:
        """Run the process from start to exit; ``on_serving`` is called when it serves."""
        try:
            process, lines = await self._start()
        except OSError as error:
            self.exit_reason = f"could not be started: {error}"
        else:
            reading = asyncio.create_task(self._read(lines, on_serving))
            self.exit_reason = _describe_exit(await process.wait())
            reading.cancel()
        finally:
            if self._pipe is not None:
                self._pipe.close()
            if not self.started.done():
                self.started.set_result(False)
            self.exited.set()

    def send_died(self, node_ids: Iterable[str]) -> None:
        """Send the ids of nodes whose processes have died."""
        if self._pipe is not None:
            # Not ``writelines``, which rejects an empty list in newer versions of Python.
            self._pipe.write("".join(f"{DIED} {node_id}\n" for node_id in node_ids).encode())

    def stop(self) -> None:
        """Request an orderly shutdown, without a replacement."""
        self.respawn, self._is_stopping = False, True
        if self.node_id is not None and self._pipe is not None:
            # Not a signal: a service manager may have sent one too, and the second ends the worker at once.
            with contextlib.suppress(OSError):
                self._pipe.write_eof()
        else:
            self._send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process, without a replacement."""
        self.respawn, self._is_stopping = False, True
        self._send_signal(signal.SIGKILL)

    def _send_signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _start(self) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
        ours, theirs = socket.socketpair()
        with theirs:
            lines, self._pipe = await asyncio.open_connection(sock=ours)
            descriptor = theirs.fileno()
            # In its own process group: Ctrl-C at a terminal is for the supervisor alone.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "--supervisor",
                str(descriptor),
                pass_fds=[descriptor],
                process_group=0,
            )
        if self._is_stopping:
            self.kill()
        return self._process, lines

    async def _read(self, lines: asyncio.StreamReader, on_serving: Callable[[Worker], None]) -> None:
        async for line in lines:
            kind, _, node_id = line.decode().strip().partition(" ")
            if kind == ACCEPTING:
                self.node_id = node_id
                self.started.set_result(True)
                on_serving(self)


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
