"""What the rounds came to: medians with their spread, and ratios of what was run side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

from benchmarks.measuring import Reports
from benchmarks.scenarios import SCENARIOS


@dataclass(frozen=True, slots=True)
class Spread:
    """The median, the least and the most of some rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """None without a value."""
        found = list(values)
        return cls(median(found), min(found), max(found)) if found else None


@dataclass(frozen=True, slots=True)
class Figures:
    """The reports of a run, read by scenario and peer. A run with a fault counts for nothing."""

    reports: Reports

    def values(self, scenario: str, peer: str, name: str) -> list[float | None]:
        """One figure in every round; None for a round that went wrong."""
        return [
            None if report["fault"] else float(report[name])
            for report in self.reports.get((scenario, peer), [])
        ]

    def spread(self, scenario: str, peer: str, name: str) -> Spread | None:
        """A figure over the rounds."""
        return Spread.of(value for value in self.values(scenario, peer, name) if value is not None)

    def ratio(self, ours: tuple[str, str, str], theirs: tuple[str, str, str]) -> Spread | None:
        """One figure by another, round by round: each is a scenario, a peer and the figure's name."""
        pairs = zip(self.values(*ours), self.values(*theirs), strict=False)
        return Spread.of(one / other for one, other in pairs if one is not None and other)

    def growth(self, scenario: str, peer: str) -> Spread | None:
        """How many MB of memory the server had more at the end than before anybody spoke."""
        pairs = zip(
            self.values(scenario, peer, "rss_mb_after"),
            self.values(scenario, peer, "rss_mb_before"),
            strict=False,
        )
        return Spread.of(
            after - before for after, before in pairs if after is not None and before is not None
        )

    def title(self, scenario: str) -> str:
        """The scenario's title, with the numbers that it was run with."""
        runs = (reports for (name, _), reports in self.reports.items() if name == scenario)
        report = next((each for reports in runs for each in reports if not each["fault"]), None)
        return SCENARIOS[scenario].title.format_map(report) if report else scenario

    def faults(self, scenario: str, peer: str) -> list[str]:
        """What went wrong."""
        found: list[dict[str, Any]] = self.reports.get((scenario, peer), [])
        return [report["fault"] for report in found if report["fault"]]


def cost_of(scenario: str) -> str:
    """The name of the figure that says what a scenario costs."""
    return "connect_cpu_us" if SCENARIOS[scenario].scenario == "connect" else "cpu_us"
