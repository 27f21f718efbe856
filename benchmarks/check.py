"""``make bench-check``: whether the ways that everything takes have become slower than they were.

python -m benchmarks.check             compares with ``check.json``, and fails above the limits there
python -m benchmarks.check --commit    writes what is measured there instead

Each path runs in this process, from the client's bytes to the server's, over transports that swallow them.
What decides is the count of bytecodes that are carried out: the same on every machine, however fast and
busy it is. It does not see what C code does, so CPU time is taken as well, as a ratio to that of a reference
of the same kind of work. There the best of many short slices counts, because whatever else the machine does
only adds; on a busy machine even that varies by half, so only what is far off fails.
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
from types import FrameType
from typing import Any

COMMITTED = Path(__file__).with_name("check.json")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# More than so many times the CPU that is committed fails; how many times the bytecodes, a path says itself.
MOST_CPU = 2.0
# Slices of each path; what then seems too slow is timed again, so often.
SLICES = 25
AGAIN = 4


@dataclass(frozen=True, slots=True)
class Figures:
    """What an operation costs: ``bytecodes``, and ``cpu`` in steps of the reference, where it is timed. So
    many times the bytecodes are lawful: ``most``."""

    bytecodes: float
    cpu: float | None = None
    most: float = 1.15

    def ratios(self, before: Figures) -> tuple[float, float | None]:
        """Of both to what it cost before."""
        cpu = None if self.cpu is None or before.cpu is None else self.cpu / before.cpu
        return self.bytecodes / before.bytecodes, cpu

    def is_slow(self, before: Figures) -> bool:
        bytecodes, cpu = self.ratios(before)
        return bytecodes > before.most or (cpu is not None and cpu > MOST_CPU)


# Counting ----------------------------------------------------------------------------------------


async def bytecodes_of(run: Callable[[], Awaitable[None]]) -> int:
    """How many this thread carries out. Exact on Python 3.11, the oldest; newer ones tell only of some."""
    count = 0

    def opcode(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return opcode

    def call(frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return opcode

    sys.settrace(call)
    try:
        await run()
    finally:
        sys.settrace(None)
    return count


# The reference -----------------------------------------------------------------------------------


class Box:
    """A step of the reference puts something into one and takes it out."""

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
    """Work of the kind that fan-out is. Whoever changes it has to commit all figures anew."""
    for number in range(3):
        frame = json.dumps({"type": "message", "number": number, "data": "x" * 100}).encode()
        for box in BOXES:
            box.put(frame)
        for box in list(BOXES):
            box.empty()


class Stopwatch:
    """The best times so far, in nanoseconds of this thread's CPU."""

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
        """How many steps of the reference it takes."""
        return self._best[name] / self._reference * STEPS


# The run -----------------------------------------------------------------------------------------


async def measure(committed: dict[str, Figures]) -> dict[str, Figures]:
    """The figures of each path; what seems slower than is committed is timed for longer."""
    from benchmarks.paths import opened

    measured: dict[str, Figures] = {}
    async with opened() as paths:
        gc.disable()
        for path in paths:
            await path.run()
            count = min([await bytecodes_of(path.run) for _ in range(3)])
            measured[path.name] = Figures(count / path.operations, most=path.most)
        stopwatch, timed = Stopwatch(), [path for path in paths if path.timed]
        for _ in range(AGAIN):
            for _ in range(SLICES):
                gc.collect()
                for path in timed:
                    await stopwatch.slice(path.name, path.run)
            for path in paths:
                if path.timed:
                    steps = stopwatch.steps(path.name) / path.operations
                    measured[path.name] = replace(measured[path.name], cpu=steps)
            # What is committed is to be the best there is.
            timed = [each for each in timed if _is_slow(measured[each.name], committed.get(each.name))]
        return measured


def _is_slow(now: Figures, before: Figures | None) -> bool:
    return before is None or now.is_slow(before)


def report(measured: dict[str, Figures], committed: dict[str, Figures]) -> tuple[str, bool]:
    """A table, and whether all is as fast as it was."""
    heads = ("bytecodes", "committed", "ratio", "at most", "CPU", "committed", "ratio", "at most")
    lines = [_line(f"Python {VERSION}", *heads)]
    slow = []
    for name, now in measured.items():
        before = committed.get(name, now)
        bytecodes, cpu = now.ratios(before)
        counted = (now.bytecodes, before.bytecodes, bytecodes, before.most)
        timed = (now.cpu, before.cpu, cpu, None if cpu is None else MOST_CPU)
        lines.append(_line(name, *("" if each is None else f"{each:.2f}" for each in (*counted, *timed))))
        if now.is_slow(before):
            slow.append(name)
    if missing := [name for name in measured if name not in committed]:
        lines.append(f"For Python {VERSION} nothing is committed of: {', '.join(missing)}.")
    if slow:
        lines += [
            f"Too slow: {', '.join(slow)}.",
            "Find out why; if it is worth it, commit what is measured: make bench-check ARGS=--commit",
        ]
    return "\n".join(lines), not slow


def _line(name: str, *columns: str) -> str:
    return f"{name:<34}" + "".join(f"{each:>10}" for each in columns)


def read() -> dict[str, dict[str, Figures]]:
    """What is committed, by version of Python."""
    kept = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    return {
        version: {name: Figures(**each) for name, each in figures.items()}
        for version, figures in kept.items()
    }


def write(figures: dict[str, dict[str, Figures]]) -> None:
    kept = {
        version: {
            name: {key: round(value, 2) for key, value in asdict(each).items() if value is not None}
            for name, each in by_name.items()
        }
        for version, by_name in sorted(figures.items())
    }
    COMMITTED.write_text(json.dumps(kept, indent=2) + "\n")


def prepare(folder: str) -> None:
    """The example site, with an empty database."""
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
        help="write what is measured to check.json, for this version of Python",
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
