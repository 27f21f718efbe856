"""The supervisor of `runrooms --workers` as a process, with workers that start at once (`worker.py`)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import BASE_DIR

# Nothing takes so long but a test that waits for what never comes.
PATIENCE = 30
WORKER = Path(__file__).with_name("worker.py")
NUMBER = 3

SCRIPT = """
import asyncio, logging, sys
from rooms.server import supervisor as module

logging.basicConfig(level=logging.INFO, format="%(message)s")
for setting in sys.argv[3:]:
    name, _, value = setting.partition("=")
    setattr(module, name, float(value))
command = [sys.executable, *sys.argv[1:3]]
supervisor = module.Supervisor(command, 3, lambda: logging.info("All serve."))
sys.exit(0 if asyncio.run(supervisor.run()) else 1)
"""


class Supervised:
    """A supervisor, what it says and what its workers wrote."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(WORKER), str(folder), *settings],
                stdout=output,
                stderr=output,
                cwd=BASE_DIR,
                env={**os.environ, "PYTHONPATH": str(BASE_DIR)},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What the supervisor has said so far."""
        return self._output.read_text()

    def wrote(self, what: str) -> list[int]:
        """The workers to which this happened, in order."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [int(pid) for pid, _, event in (line.partition(" ") for line in lines) if event == what]

    @property
    def alive(self) -> list[int]:
        """The workers that serve, the oldest first."""
        return [pid for pid in self.wrote("serves") if is_alive(pid)]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain:\n{self.said}"
            time.sleep(0.01)

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(PATIENCE)


def is_alive(pid: int) -> bool:
    """Whether there is such a process; one that has ended and is not waited for is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Starts a supervisor, with other constants than its own."""
    started: list[Supervised] = []

    def start(*settings: str) -> Supervised:
        started.append(supervised := Supervised(tmp_path, *settings))
        supervised.until(lambda: "All serve." in supervised.said)
        return supervised

    yield start
    (tmp_path / "stubborn").unlink(missing_ok=True)
    for supervised in started:
        supervised.process.kill()
        supervised.process.wait()
        for pid in supervised.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def supervised(start: Callable[..., Supervised]) -> Supervised:
    """A supervisor whose workers serve."""
    return start()


def test_it_says_once_that_all_serve(supervised: Supervised) -> None:
    assert len(supervised.alive) == NUMBER
    os.kill(supervised.alive[0], signal.SIGKILL)
    supervised.until(lambda: len(supervised.wrote("serves")) == NUMBER + 1)
    supervised.signal(signal.SIGTERM)
    assert supervised.ended() == 0
    assert supervised.said.count("All serve.") == 1


def test_a_worker_that_is_killed_is_replaced_each_time(supervised: Supervised) -> None:
    first, *others = supervised.alive
    for number in range(1, 11):
        os.kill(first, signal.SIGKILL)
        supervised.until(lambda: len(supervised.wrote("serves")) == NUMBER + number)  # noqa: B023
        first = supervised.alive[-1]
    assert supervised.alive == [*others, first]
    assert supervised.said.count("was ended by SIGKILL. Another one is started now.") == 10


def test_the_others_hear_who_is_gone(supervised: Supervised) -> None:
    first, *others = supervised.alive
    os.kill(first, signal.SIGKILL)
    heard = f"heard of node-{first}"
    supervised.until(lambda: len(supervised.wrote(heard)) == len(others))
    assert sorted(supervised.wrote(heard)) == sorted(others)


def test_where_nobody_is_left_the_next_hear_who_is_gone(supervised: Supervised) -> None:
    gone = supervised.alive
    os.kill(supervised.process.pid, signal.SIGSTOP)
    for pid in gone:
        os.kill(pid, signal.SIGKILL)
    os.kill(supervised.process.pid, signal.SIGCONT)
    supervised.until(lambda: len(supervised.alive) == NUMBER)
    for pid in gone:
        supervised.until(lambda: set(supervised.wrote(f"heard of node-{pid}")) & set(supervised.alive))  # noqa: B023


def test_one_that_ends_by_itself_is_replaced_too(supervised: Supervised) -> None:
    first = supervised.alive[0]
    os.kill(first, signal.SIGUSR1)
    supervised.until(lambda: len(supervised.wrote("serves")) == NUMBER + 1)
    assert f"Worker {first} ended with exit code 0. Another one is started now." in supervised.said


def test_one_that_cannot_start_is_tried_again_after_longer_and_longer(supervised: Supervised) -> None:
    broken = supervised.folder / "broken"
    broken.touch()
    os.kill(supervised.alive[0], signal.SIGKILL)
    for pause in ("0.2", "0.4", "0.8"):
        words = f"ended with exit code 3. Another one is started in {pause} seconds."
        supervised.until(lambda: words in supervised.said)  # noqa: B023
    assert len(supervised.alive) == NUMBER - 1
    broken.unlink()
    supervised.until(lambda: len(supervised.alive) == NUMBER)


def test_the_pause_has_an_upper_bound(start: Callable[..., Supervised]) -> None:
    supervised = start("LONGEST_PAUSE=0.3")
    (supervised.folder / "broken").touch()
    os.kill(supervised.alive[0], signal.SIGKILL)
    supervised.until(lambda: supervised.said.count("Another one is started in 0.3 seconds.") == 3)


# New workers in all places ------------------------------------------------------------------------------


def test_with_sighup_all_are_replaced_one_after_the_other(supervised: Supervised) -> None:
    old = supervised.alive
    supervised.signal(signal.SIGHUP)
    supervised.until(lambda: "Every worker has been replaced." in supervised.said)
    assert len(supervised.alive) == NUMBER
    assert not set(old) & set(supervised.alive)
    lines = (supervised.folder / "log").read_text().splitlines()
    events = [line.partition(" ")[2] for line in lines if "heard" not in line]
    assert events == ["serves"] * NUMBER + ["serves", "is told to end"] * NUMBER
    assert "Another one" not in supervised.said


def test_new_ones_that_do_not_start_leave_the_old_ones_in_their_places(supervised: Supervised) -> None:
    old = supervised.alive
    broken = supervised.folder / "broken"
    broken.touch()
    supervised.signal(signal.SIGHUP)
    words = "ended with exit code 3 before it served. The others stay as they are."
    supervised.until(lambda: words in supervised.said)
    assert supervised.alive == old
    broken.unlink()
    supervised.signal(signal.SIGHUP)
    supervised.until(lambda: "Every worker has been replaced." in supervised.said)
    supervised.signal(signal.SIGTERM)
    assert supervised.ended() == 0


# The end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_a_signal_all_end_in_order(supervised: Supervised, number: signal.Signals) -> None:
    workers = supervised.alive
    # As a terminal sends Ctrl-C: to the whole group.
    os.killpg(supervised.process.pid, number)
    assert supervised.ended() == 0
    assert sorted(supervised.wrote("is told to end")) == sorted(workers)
    assert supervised.alive == []
    assert "Another one" not in supervised.said


def test_it_ends_while_it_waits_to_start_another_one(start: Callable[..., Supervised]) -> None:
    supervised = start("FIRST_PAUSE=1000", "LONGEST_PAUSE=1000")
    (supervised.folder / "broken").touch()
    os.kill(supervised.alive[0], signal.SIGKILL)
    supervised.until(lambda: "in 1000 seconds" in supervised.said)
    supervised.signal(signal.SIGTERM)
    assert supervised.ended() == 0
    assert supervised.alive == []


def test_one_that_does_not_end_is_ended(start: Callable[..., Supervised]) -> None:
    supervised = start("END_SECONDS=0.2")
    (supervised.folder / "stubborn").touch()
    supervised.signal(signal.SIGTERM)
    assert supervised.ended() == 1
    assert supervised.alive == []
    assert "3 workers still ran 0.2 seconds after the signal." in supervised.said


def test_a_second_signal_ends_all_at_once(supervised: Supervised) -> None:
    (supervised.folder / "stubborn").touch()
    supervised.signal(signal.SIGTERM)
    supervised.until(lambda: len(supervised.wrote("is told to end")) == NUMBER)
    supervised.signal(signal.SIGTERM)
    assert supervised.ended() == -signal.SIGTERM
    supervised.until(lambda: supervised.alive == [])


def test_workers_do_not_outlive_a_supervisor_that_is_killed(supervised: Supervised) -> None:
    workers = supervised.alive
    supervised.process.kill()
    supervised.until(lambda: supervised.alive == [])
    assert sorted(supervised.wrote("is told to end")) == sorted(workers)
