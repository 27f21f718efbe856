"""The trips through `rooms/` stay within their budgets: few files, and few changes from one to another.

`tests/trips.py` says what counts; `python -m tests.trips --trip join` shows where a trip goes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.trips import Trip, table

BASE_DIR = Path(__file__).resolve().parent.parent
TIMEOUT = 300


@dataclass(frozen=True)
class Budget:
    """At most this many files and changes. ``exceeded`` is the reason where that is not reached yet."""

    files: int
    changes: int
    exceeded: str = ""

    def breach(self, trip: Trip) -> str:
        """What is above the budget; empty: nothing."""
        if trip.files <= self.files and trip.changes <= self.changes:
            return ""
        return (
            f"{trip.name}: {trip.files} files, {trip.changes} changes; "
            f"expected at most {self.files} and {self.changes}."
        )


BUDGETS = {
    "message, history none": Budget(15, 45, exceeded="20 files, 54 changes"),
    "message, history database": Budget(15, 45, exceeded="25 files, 77 changes"),
    "join": Budget(20, 70, exceeded="35 files, 123 changes"),
    "login": Budget(16, 40, exceeded="22 files, 56 changes"),
    "publish from a view": Budget(12, 30, exceeded="15 files, 53 changes"),
    "publish beside the node": Budget(12, 30, exceeded="24 files, 61 changes"),
    "extension settings saved": Budget(14, 45, exceeded="18 files, 48 changes"),
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


def parameter(name: str, budget: Budget) -> Any:
    marks = [pytest.mark.xfail(strict=True, reason=budget.exceeded)] if budget.exceeded else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [parameter(*each) for each in BUDGETS.items()])
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
