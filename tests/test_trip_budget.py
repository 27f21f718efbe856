"""The trips through `rooms/` stay within their budgets: few files, and few changes from one to another.

`tests/trips.py` says what counts; `python -m tests.trips --trip join` shows where a trip goes. A budget is
what a trip takes now; it may only fall. The goal of the design is beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.trips import Trip, table

BASE_DIR = Path(__file__).resolve().parent.parent
TIMEOUT = 300


@dataclass(frozen=True)
class Budget:
    """At most this many files and changes; ``goal`` is what the design aims at."""

    files: int
    changes: int
    goal: tuple[int, int] = (0, 0)

    def breach(self, trip: Trip) -> str:
        """What is above the budget; empty: nothing."""
        if trip.files <= self.files and trip.changes <= self.changes:
            return ""
        return (
            f"{trip.name}: {trip.files} files, {trip.changes} changes; "
            f"expected at most {self.files} and {self.changes}."
        )


BUDGETS = {
    "message, history none": Budget(20, 50, goal=(15, 45)),
    "message, history database": Budget(25, 73, goal=(15, 45)),
    "join": Budget(33, 112, goal=(20, 70)),
    "login": Budget(22, 56, goal=(16, 40)),
    "publish from a view": Budget(15, 52, goal=(12, 30)),
    "publish beside the node": Budget(24, 58, goal=(12, 30)),
    "extension settings saved": Budget(17, 46, goal=(14, 45)),
}


def measured(*options: str) -> dict[str, Trip]:
    """The trips, traced in a process of their own: tracing begins before Django is set up."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.trips", "--json", *options],
        capture_output=True,
        text=True,
        cwd=BASE_DIR,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    trips = [
        Trip(each["name"], [tuple(entry) for entry in each["entries"]]) for each in json.loads(done.stdout)
    ]
    return {trip.name: trip for trip in trips}


@pytest.fixture(scope="module")
def trips() -> dict[str, Trip]:
    return measured()


def test_every_trip_has_a_budget(trips: dict[str, Trip]) -> None:
    assert trips.keys() == BUDGETS.keys()


@pytest.mark.parametrize("name", BUDGETS)
def test_the_trip_is_within_its_budget(trips: dict[str, Trip], name: str) -> None:
    trip = trips[name]
    breach = BUDGETS[name].breach(trip)
    assert not breach, f"{breach}\n\n{table([*trips.values()])}\n\n{trip.sequence()}"


def test_one_needless_hop_exceeds_a_budget_that_was_just_met(trips: dict[str, Trip]) -> None:
    hopped = measured("--needless-hop")
    for name in ("message, history none", "message, history database", "join"):
        met = Budget(trips[name].files, trips[name].changes)
        assert not met.breach(trips[name])
        assert hopped[name].files == trips[name].files + 1
        assert met.breach(hopped[name])
