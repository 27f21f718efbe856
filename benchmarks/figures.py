"""Figures of the rounds: medians with their spread, and ratios."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

from benchmarks.measuring import Reports
from benchmarks.scenarios import SCENARIOS


@dataclass(frozen=True, slots=True)
class Spread:
    """The median, the minimum and the maximum of the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """Return the spread of the values, None without values."""
        found = list(values)
        return cls(median(found), min(found), max(found)) if found else None


@dataclass(frozen=True, slots=True)
class Figures:
    """The reports of a benchmark by scenario and peer. A run with a fault is ignored."""

    reports: Reports

    def values(self, scenario: str, peer: str, name: str) -> list[float | None]:
        """Return a figure of every round; None for a round with a fault."""
        return [
            None if report["fault"] else float(report[name])
            for report in self.reports.get((scenario, peer), [])
        ]

    def spread(self, scenario: str, peer: str, name: str) -> Spread | None:
        """Return the spread of a figure."""
        return Spread.of(value for value in self.values(scenario, peer, name) if value is not None)

    def ratio(self, ours: tuple[str, str, str], theirs: tuple[str, str, str]) -> Spread | None:
        """Return the ratio of two figures by round: scenario, peer and name of each."""
        pairs = zip(self.values(*ours), self.values(*theirs), strict=False)
        return Spread.of(one / other for one, other in pairs if one is not None and other)

    def growth(self, scenario: str, peer: str) -> Spread | None:
        """Return the growth of the server's memory in MB during the run."""
        pairs = zip(
            self.values(scenario, peer, "rss_mb_after"),
            self.values(scenario, peer, "rss_mb_before"),
            strict=False,
        )
        return Spread.of(
            after - before for after, before in pairs if after is not None and before is not None
        )

    def title(self, scenario: str) -> str:
        """Return the title of the scenario with the numbers of its runs."""
        runs = (reports for (name, _), reports in self.reports.items() if name == scenario)
        report = next((each for reports in runs for each in reports if not each["fault"]), None)
        return SCENARIOS[scenario].title.format_map(report) if report else scenario

    def faults(self, scenario: str, peer: str) -> list[str]:
        """Return the faults of the runs."""
        found: list[dict[str, Any]] = self.reports.get((scenario, peer), [])
        return [report["fault"] for report in found if report["fault"]]


def cost_of(scenario: str) -> str:
    """Return the name of the figure for the cost of a scenario."""
    return "connect_cpu_us" if SCENARIOS[scenario].scenario == "connect" else "cpu_us"
