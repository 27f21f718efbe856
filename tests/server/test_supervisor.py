"""The supervisor of `runrooms --workers` as a process, with fake workers."""

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

#: Seconds to wait for what must happen. No assertion is about time.
PATIENCE = 60
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
supervisor = module.Supervisor(command, 3, lambda: logging.info("All workers serve."))
sys.exit(0 if asyncio.run(supervisor.run()) else 1)
"""


class SupervisorProcess:
    """A supervisor process, its output and the log of its workers."""

    def __init__(self, directory: Path, *settings: str) -> None:
        self.directory = directory
        self._output = directory / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(WORKER), str(directory), *settings],
                stdout=output,
                stderr=output,
                cwd=BASE_DIR,
                env={**os.environ, "PYTHONPATH": str(BASE_DIR)},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Its output so far."""
        return self._output.read_text()

    def logged(self, event: str) -> list[int]:
        """The workers that logged this event, in order."""
        log = self.directory / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [int(pid) for pid, _, each in (line.partition(" ") for line in lines) if each == event]

    @property
    def alive(self) -> list[int]:
        """The workers that run, the oldest first."""
        return [pid for pid in self.logged("serves") if is_alive(pid)]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition is true."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"not within {PATIENCE} seconds:\n{self.output}"
            time.sleep(0.01)

    def exit_code(self) -> int:
        """Wait until it exits."""
        return self.process.wait(PATIENCE)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., SupervisorProcess]]:
    """Start a supervisor with changed constants, such as RESTART_DELAY=1000."""
    started: list[SupervisorProcess] = []

    def start(*settings: str) -> SupervisorProcess:
        started.append(supervisor := SupervisorProcess(tmp_path, *settings))
        supervisor.until(lambda: "All workers serve." in supervisor.output)
        return supervisor

    yield start
    (tmp_path / "stubborn").unlink(missing_ok=True)
    for supervisor in started:
        supervisor.process.kill()
        supervisor.process.wait()
        for pid in supervisor.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def supervisor(start: Callable[..., SupervisorProcess]) -> SupervisorProcess:
    """A supervisor whose workers serve."""
    return start()


def test_serving_is_reported_once(supervisor: SupervisorProcess) -> None:
    assert len(supervisor.alive) == NUMBER
    os.kill(supervisor.alive[0], signal.SIGKILL)
    supervisor.until(lambda: len(supervisor.logged("serves")) == NUMBER + 1)
    supervisor.signal(signal.SIGTERM)
    assert supervisor.exit_code() == 0
    assert supervisor.output.count("All workers serve.") == 1


def test_killed_worker_is_replaced_each_time(supervisor: SupervisorProcess) -> None:
    first, *others = supervisor.alive
    for number in range(1, 11):
        os.kill(first, signal.SIGKILL)
        supervisor.until(lambda: len(supervisor.logged("serves")) == NUMBER + number)  # noqa: B023
        first = supervisor.alive[-1]
    assert supervisor.alive == [*others, first]
    assert supervisor.output.count("was killed by SIGKILL. A replacement is started now.") == 10


def test_other_workers_receive_the_id_of_the_dead_node(supervisor: SupervisorProcess) -> None:
    first, *others = supervisor.alive
    os.kill(first, signal.SIGKILL)
    event = f"node-{first} died"
    supervisor.until(lambda: len(supervisor.logged(event)) == len(others))
    assert sorted(supervisor.logged(event)) == sorted(others)


def test_replacements_receive_the_ids_when_all_workers_died(supervisor: SupervisorProcess) -> None:
    dead = supervisor.alive
    os.kill(supervisor.process.pid, signal.SIGSTOP)
    for pid in dead:
        os.kill(pid, signal.SIGKILL)
    os.kill(supervisor.process.pid, signal.SIGCONT)
    supervisor.until(lambda: len(supervisor.alive) == NUMBER)
    for pid in dead:
        supervisor.until(lambda: set(supervisor.logged(f"node-{pid} died")) & set(supervisor.alive))  # noqa: B023


def test_worker_that_exits_is_replaced(supervisor: SupervisorProcess) -> None:
    first = supervisor.alive[0]
    os.kill(first, signal.SIGUSR1)
    supervisor.until(lambda: len(supervisor.logged("serves")) == NUMBER + 1)
    assert f"Worker {first} exited with code 0. A replacement is started now." in supervisor.output


def test_delay_doubles_while_a_worker_cannot_start(supervisor: SupervisorProcess) -> None:
    broken = supervisor.directory / "broken"
    broken.touch()
    os.kill(supervisor.alive[0], signal.SIGKILL)
    for delay in ("0.2", "0.4", "0.8"):
        line = f"exited with code 3. A replacement is started in {delay} seconds."
        supervisor.until(lambda: line in supervisor.output)  # noqa: B023
    assert len(supervisor.alive) == NUMBER - 1
    broken.unlink()
    supervisor.until(lambda: len(supervisor.alive) == NUMBER)


def test_delay_has_a_maximum(start: Callable[..., SupervisorProcess]) -> None:
    supervisor = start("MAX_RESTART_DELAY=0.3")
    (supervisor.directory / "broken").touch()
    os.kill(supervisor.alive[0], signal.SIGKILL)
    supervisor.until(lambda: supervisor.output.count("A replacement is started in 0.3 seconds.") == 3)


# Rolling restart -----------------------------------------------------------------------------------------


def test_sighup_replaces_the_workers_one_after_the_other(supervisor: SupervisorProcess) -> None:
    old = supervisor.alive
    supervisor.signal(signal.SIGHUP)
    supervisor.until(lambda: "All workers have been replaced." in supervisor.output)
    assert len(supervisor.alive) == NUMBER
    assert not set(old) & set(supervisor.alive)
    lines = (supervisor.directory / "log").read_text().splitlines()
    events = [line.partition(" ")[2] for line in lines if "died" not in line]
    assert events == ["serves"] * NUMBER + ["serves", "shuts down"] * NUMBER
    assert "replacement" not in supervisor.output


def test_old_workers_stay_when_a_new_one_does_not_start(supervisor: SupervisorProcess) -> None:
    old = supervisor.alive
    broken = supervisor.directory / "broken"
    broken.touch()
    supervisor.signal(signal.SIGHUP)
    line = "exited with code 3 before it served. The other workers stay."
    supervisor.until(lambda: line in supervisor.output)
    assert supervisor.alive == old
    broken.unlink()
    supervisor.signal(signal.SIGHUP)
    supervisor.until(lambda: "All workers have been replaced." in supervisor.output)
    supervisor.signal(signal.SIGTERM)
    assert supervisor.exit_code() == 0


# Shutdown ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_shuts_all_workers_down(supervisor: SupervisorProcess, number: signal.Signals) -> None:
    workers = supervisor.alive
    # To the whole process group, as a terminal sends Ctrl-C.
    os.killpg(supervisor.process.pid, number)
    assert supervisor.exit_code() == 0
    assert sorted(supervisor.logged("shuts down")) == sorted(workers)
    assert supervisor.alive == []
    assert "replacement" not in supervisor.output


def test_signal_interrupts_the_delay_before_a_replacement(start: Callable[..., SupervisorProcess]) -> None:
    supervisor = start("RESTART_DELAY=1000", "MAX_RESTART_DELAY=1000")
    (supervisor.directory / "broken").touch()
    os.kill(supervisor.alive[0], signal.SIGKILL)
    supervisor.until(lambda: "in 1000 seconds" in supervisor.output)
    supervisor.signal(signal.SIGTERM)
    assert supervisor.exit_code() == 0
    assert supervisor.alive == []


def test_worker_that_does_not_shut_down_is_killed(start: Callable[..., SupervisorProcess]) -> None:
    supervisor = start("SHUTDOWN_TIMEOUT=0.2")
    (supervisor.directory / "stubborn").touch()
    supervisor.signal(signal.SIGTERM)
    assert supervisor.exit_code() == 1
    assert supervisor.alive == []
    assert "3 workers still run 0.2 seconds after the shutdown signal; they are killed." in supervisor.output


def test_second_signal_kills_all_workers(supervisor: SupervisorProcess) -> None:
    (supervisor.directory / "stubborn").touch()
    supervisor.signal(signal.SIGTERM)
    supervisor.until(lambda: len(supervisor.logged("shuts down")) == NUMBER)
    supervisor.signal(signal.SIGTERM)
    assert supervisor.exit_code() == -signal.SIGTERM
    supervisor.until(lambda: supervisor.alive == [])


def test_workers_shut_down_when_the_supervisor_is_killed(supervisor: SupervisorProcess) -> None:
    workers = supervisor.alive
    supervisor.process.kill()
    supervisor.until(lambda: supervisor.alive == [])
    assert sorted(supervisor.logged("shuts down")) == sorted(workers)
