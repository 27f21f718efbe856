"""``make bench-check``: checks that the hot paths have not become slower.

python -m benchmarks.check             compares with ``check.json``, and fails above the limits there
python -m benchmarks.check --commit    writes the measured figures to it instead

Each path runs in this process, from the bytes of the client to those of the server, over fake transports.
The main figure is the number of executed bytecodes, which does not depend on the machine and its load. It
does not include C code, so CPU time is measured as well, relative to a reference with similar work. The
best of many short slices counts, because other load only adds; even that varies by half on a busy
machine, so only a large difference fails.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.bytecodes import bytecodes_of

COMMITTED = Path(__file__).with_name("check.json")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# The maximum ratio of CPU time to the committed one; each path has its own maximum for bytecodes.
MAX_CPU = 2.0
# Slices of each path, and how often a path that seems too slow is timed.
SLICES = 25
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Figures:
    """The cost of an operation: ``bytecodes``, and ``cpu`` if it is timed.

    ``most`` is the maximum ratio of bytecodes.
    """

    bytecodes: float
    cpu: float | None = None
    most: float = 1.15

    def ratios(self, before: Figures) -> tuple[float, float | None]:
        """Return the ratios of both figures to the earlier ones."""
        cpu = None if self.cpu is None or before.cpu is None else self.cpu / before.cpu
        return self.bytecodes / before.bytecodes, cpu

    def is_slow(self, before: Figures) -> bool:
        bytecodes, cpu = self.ratios(before)
        return bytecodes > before.most or (cpu is not None and cpu > MAX_CPU)


# The reference -----------------------------------------------------------------------------------


class Box:
    """The reference puts frames into boxes and takes them out."""

    __slots__ = ("closed", "frames", "size", "taken")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.taken: list[bytes] = []
        self.size = 0
        self.closed: int | None = None

    def put(self, frame: bytes) -> None:
        if self.closed is None:
            self.frames.append(frame)
            self.size += len(frame)

    def empty(self) -> None:
        frames, self.frames = self.frames, []
        for each in frames:
            if isinstance(each, bytes):
                self.size -= len(each)
        self.taken = [b"".join(frames)] if len(frames) > 1 else frames


BOXES = dict.fromkeys(Box() for _ in range(300))
STEPS = 3 * len(BOXES)


def reference() -> None:
    """Do work that resembles fan-out.

    After a change all figures must be committed again.
    """
    for number in range(3):
        frame = json.dumps({"type": "message", "number": number, "data": "x" * 100}).encode()
        for box in BOXES:
            box.put(frame)
        for box in list(BOXES):
            box.empty()


class Stopwatch:
    """The best times so far, in nanoseconds of CPU time of this thread."""

    def __init__(self) -> None:
        self._reference = sys.maxsize
        self._best: dict[str, int] = {}

    async def slice(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        clock = time.thread_time_ns
        begin = clock()
        reference()
        middle = clock()
        await run()
        end = clock()
        self._reference = min(self._reference, middle - begin)
        self._best[name] = min(self._best.get(name, sys.maxsize), end - middle)

    def steps(self, name: str) -> float:
        """Return the CPU time of a path in steps of the reference."""
        return self._best[name] / self._reference * STEPS


# The run -----------------------------------------------------------------------------------------


async def measure(committed: dict[str, Figures]) -> dict[str, Figures]:
    """Measure each path; one that seems slower than before is timed again."""
    from benchmarks.paths import opened

    measured: dict[str, Figures] = {}
    async with opened() as paths:
        gc.disable()
        for path in paths:
            await path.run()
            count = min([await bytecodes_of(path.run) for _ in range(3)])
            measured[path.name] = Figures(count / path.operations, most=path.most)
        stopwatch, timed = Stopwatch(), [path for path in paths if path.timed]
        for _ in range(ATTEMPTS):
            for _ in range(SLICES):
                gc.collect()
                for path in timed:
                    await stopwatch.slice(path.name, path.run)
            for path in paths:
                if path.timed:
                    steps = stopwatch.steps(path.name) / path.operations
                    measured[path.name] = replace(measured[path.name], cpu=steps)
            # A path without committed figures is timed in every attempt.
            timed = [each for each in timed if _is_slow(measured[each.name], committed.get(each.name))]
        return measured


def _is_slow(now: Figures, before: Figures | None) -> bool:
    return before is None or now.is_slow(before)


def report(measured: dict[str, Figures], committed: dict[str, Figures]) -> tuple[str, bool]:
    """Return a table, and whether no path is too slow."""
    heads = ("bytecodes", "committed", "ratio", "at most", "CPU", "committed", "ratio", "at most")
    lines = [_line(f"Python {VERSION}", *heads)]
    slow = []
    for name, now in measured.items():
        before = committed.get(name, now)
        bytecodes, cpu = now.ratios(before)
        counted = (now.bytecodes, before.bytecodes, bytecodes, before.most)
        timed = (now.cpu, before.cpu, cpu, None if cpu is None else MAX_CPU)
        lines.append(_line(name, *("" if each is None else f"{each:.2f}" for each in (*counted, *timed))))
        if now.is_slow(before):
            slow.append(name)
    if missing := [name for name in measured if name not in committed]:
        lines.append(f"No committed figures for Python {VERSION}: {', '.join(missing)}.")
    if slow:
        lines += [
            f"Too slow: {', '.join(slow)}.",
            "Find the reason; if it is justified, commit the new figures: make bench-check ARGS=--commit",
        ]
    return "\n".join(lines), not slow


def _line(name: str, *columns: str) -> str:
    return f"{name:<34}" + "".join(f"{each:>10}" for each in columns)


def read() -> dict[str, dict[str, Figures]]:
    """Return the committed figures by version of Python."""
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    return {
        version: {name: Figures(**each) for name, each in figures.items()}
        for version, figures in committed.items()
    }


def write(figures: dict[str, dict[str, Figures]]) -> None:
    committed = {
        version: {
            name: {key: round(value, 2) for key, value in asdict(each).items() if value is not None}
            for name, each in by_name.items()
        }
        for version, by_name in sorted(figures.items())
    }
    COMMITTED.write_text(json.dumps(committed, indent=2) + "\n")


def prepare(folder: str) -> None:
    """Set up the example site with an empty database."""
    import logging

    os.environ.update(
        DJANGO_SETTINGS_MODULE="roomsite.settings",
        DATABASE_URL=f"sqlite:///{folder}/db.sqlite3",
        SECRET_KEY="x" * 50,
        ALLOWED_HOSTS="127.0.0.1",
    )
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    logging.disable(logging.INFO)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument(
        "--commit",
        action="store_true",
        help="write the measured figures to check.json, for this version of Python",
    )
    commit = parser.parse_args().commit
    figures = read()
    committed = figures.get(VERSION, {})
    with tempfile.TemporaryDirectory(prefix="rooms-check-") as folder:
        prepare(folder)
        measured = asyncio.run(measure({} if commit else committed))
    table, fast = report(measured, committed)
    sys.stdout.write(f"{table}\n")
    if commit:
        write(figures | {VERSION: measured})
    return 0 if fast or commit else 1


if __name__ == "__main__":
    sys.exit(main())
