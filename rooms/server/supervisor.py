"""The supervisor behind ``runrooms --workers``: serves nothing itself, and keeps so many workers serving.

A worker that ends is replaced, whatever it ended of. SIGHUP replaces all of them one after the other, SIGTERM
and SIGINT end them together. Each worker is told which others are gone, so that the people who were there
need not wait for a lease to end (``presence/``). Next in the flow: ``workers.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence

from rooms.server.worker import Worker

logger = logging.getLogger("rooms.server")

# One that ended before it served is replaced after a pause, which doubles each time, up to the second.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 3.0
# A new worker has so long to serve, before a replacement of all of them is given up.
START_SECONDS = 60.0
# Workers end by themselves within 24 seconds of being told to.
END_SECONDS = 24.5


class Supervisor:
    """Runs the command as that many workers; ``serving`` is called when all of them serve."""

    def __init__(self, command: Sequence[str], number: int, serving: Callable[[], None]) -> None:
        self._command = command
        self._number = number
        self._serving: Callable[[], None] | None = serving
        self._workers: set[Worker] = set()
        self._places: set[asyncio.Task[None]] = set()
        # Who is gone, of late: whoever was told of one may itself have been about to go.
        self._died: deque[str] = deque(maxlen=2 * number)
        self._ending = asyncio.Event()
        self._renewal = asyncio.Event()
        self._orderly = True

    async def run(self) -> bool:
        """Until SIGTERM or SIGINT. Returns whether every worker then ended as it was told to."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._renewal.set)
        for _ in range(self._number):
            self._occupy(Worker(self._command))
        renewing = asyncio.create_task(self._renew())
        await self._ending.wait()
        renewing.cancel()
        for worker in self._workers:
            worker.end()
        _, late = await asyncio.wait(self._places, timeout=END_SECONDS)
        if late:
            logger.error("%d workers still ran %g seconds after the signal.", len(late), END_SECONDS)
            self._kill()
            await asyncio.wait(late)
        return self._orderly

    def _end(self, number: signal.Signals) -> None:
        """The first signal has the workers end in order, the second ends everything at once."""
        if self._ending.is_set():
            self._kill()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._ending.set()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    # Places -------------------------------------------------------------------------------------------

    def _occupy(self, worker: Worker) -> None:
        self._workers.add(worker)
        place = asyncio.create_task(self._keep(worker))
        self._places.add(place)
        place.add_done_callback(self._places.discard)

    async def _keep(self, worker: Worker) -> None:
        """One worker after the other, as long as the one that ended was wanted."""
        pause = 0.0
        while True:
            await worker.run(self._serves)
            self._workers.discard(worker)
            self._tell_died(worker)
            if not worker.wanted:
                self._orderly = self._orderly and (worker.is_orderly or not self._ending.is_set())
                return
            pause = 0.0 if worker.node is not None else min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
            when = f"in {pause:g} seconds" if pause else "now"
            logger.error("%s %s. Another one is started %s.", worker, worker.how, when)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
                return
            worker = Worker(self._command)
            self._workers.add(worker)

    def _serves(self, worker: Worker) -> None:
        """A worker serves now."""
        logger.info("%s serves.", worker)
        worker.tell_died(self._died)
        if self._serving is not None and len(self._in_service()) == self._number:
            self._serving()
            self._serving = None

    def _tell_died(self, gone: Worker) -> None:
        """Tell those that serve who is gone."""
        if gone.node is not None:
            self._died.append(gone.node)
            for worker in self._in_service():
                worker.tell_died([gone.node])

    def _in_service(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.is_serving]

    # New workers in all places --------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Each time that it is asked for; once more where it was asked for meanwhile."""
        while await self._renewal.wait():
            self._renewal.clear()
            for old in list(self._workers):
                if old in self._workers and not await self._replace(old):
                    break
            else:
                logger.info("Every worker has been replaced.")

    async def _replace(self, old: Worker) -> bool:
        """Start a new worker beside an old one, and end that when the new one serves. False where it does
        not."""
        new = Worker(self._command, wanted=False)
        self._occupy(new)
        served = False
        with contextlib.suppress(TimeoutError):
            served = await asyncio.wait_for(asyncio.shield(new.served), START_SECONDS)
        if not served:
            new.kill()
            await new.gone.wait()
            logger.error("%s %s before it served. The others stay as they are.", new, new.how)
            return False
        # The old one may have ended meanwhile; then its place is taken already.
        new.wanted = old in self._workers
        leaving = old if new.wanted else new
        leaving.end()
        await leaving.gone.wait()
        return True
