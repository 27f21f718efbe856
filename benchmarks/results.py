"""Writes the results: `results/latest.json`, and tables in `docs/performance.md`.

The section is the part between two marks.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import chart
from benchmarks.figures import Figures, Spread, cost_of
from benchmarks.goals import goals
from benchmarks.measuring import Reports
from benchmarks.peers import SERVERS
from benchmarks.scenarios import SCENARIOS, Scenario

BASE_DIR = Path(__file__).resolve().parent.parent
LATEST = BASE_DIR / "benchmarks" / "results" / "latest.json"
PAGE = BASE_DIR / "docs" / "performance.md"
PICTURE = BASE_DIR / "docs" / "images" / "performance.svg"
BEGIN, END = "<!-- the last result: written by make bench -->", "<!-- the end of the last result -->"

PACKAGES = (
    *("django", "channels", "channels-redis", "daphne", "uvicorn", "uvloop", "websockets"),
    *("msgspec", "python-socketio", "redis"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A complete run. ``titles`` of peers are by name, ``left_out`` by title."""

    reports: Reports
    titles: Mapping[str, str]
    left_out: Mapping[str, str]
    about: Mapping[str, str]

    @property
    def figures(self) -> Figures:
        """The figures of its reports."""
        return Figures(self.reports)


def gather(
    reports: Reports, titles: Mapping[str, str], left_out: Mapping[str, str], *, command: str
) -> Result:
    """Return the result with a description of the machine and the command."""
    about = {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Command": f"`{command.strip()}`",
        "Machine": f"{_processor()}, {os.cpu_count()} cores, shared by servers and generator",
        "System": f"{platform.system()} {platform.release()}",
        "Versions": ", ".join(_versions()),
    }
    return Result(reports=reports, titles=titles, left_out=left_out, about=about)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    yield from (f"{name} {version(name)}" for name in PACKAGES)
    if node := shutil.which("node"):
        yield f"Node {subprocess.run([node, '--version'], capture_output=True, text=True).stdout.strip()}"
        packages = json.loads((SERVERS / "node" / "package-lock.json").read_text())["packages"]
        yield from (f"{name} {packages[f'node_modules/{name}']['version']}" for name in ("socket.io", "ws"))


def number(value: float) -> str:
    """Format with the significant digits."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f}"


def spread(found: Spread | None, suffix: str = "") -> str:
    """Format a median with its range."""
    if found is None:
        return "–"
    return f"{number(found.median)}{suffix} ({number(found.least)}–{number(found.most)})"


def middle(found: Spread | None) -> str:
    """Format the median."""
    return "–" if found is None else number(found.median)


def table(result: Result, scenario: Scenario) -> str:
    """Return the table of a scenario: a row for each peer, the cheapest first."""
    figures, cost = result.figures, cost_of(scenario.name)
    connects = scenario.scenario == "connect"
    rate = "connects_per_second" if connects else "deliveries_per_second"
    heads = ["server", "a second", scenario.cost, "Rooms : it"]
    heads += ["kB a client"] if connects else ["p50 ms", "p99 ms", "cores"]
    heads += ["MB more at the end"] if "stalled" in scenario.name else []
    rows = []
    peers = [peer for name, peer in result.reports if name == scenario.name]
    costs = {peer: figures.spread(scenario.name, peer, cost) for peer in peers}
    for peer in sorted(peers, key=lambda peer: found.median if (found := costs[peer]) else float("inf")):
        if costs[peer] is None:
            rows.append([result.titles[peer], f"failed: {figures.faults(scenario.name, peer)[0]}"])
            continue
        rooms = figures.ratio((scenario.name, "rooms", cost), (scenario.name, peer, cost))
        row = [
            result.titles[peer],
            middle(figures.spread(scenario.name, peer, rate)),
            spread(costs[peer]),
            middle(rooms),
        ]
        shown = ["connection_kb"] if connects else ["p50_ms", "p99_ms", "cores"]
        row += [middle(figures.spread(scenario.name, peer, name)) for name in shown]
        row += [middle(figures.growth(scenario.name, peer))] if "stalled" in scenario.name else []
        if faults := figures.faults(scenario.name, peer):
            row[0] += f" ({len(faults)} of {len(result.reports[scenario.name, peer])} rounds failed)"
        rows.append(row)
    return markdown(heads, rows)


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """Format a table."""
    lines = [
        heads,
        ["---", *["---:"] * (len(heads) - 1)],
        *(row + [""] * (len(heads) - len(row)) for row in rows),
    ]
    return "\n".join(f"| {' | '.join(cell.replace('|', '¦') for cell in line)} |" for line in lines)


def goal_table(result: Result) -> str:
    """Return the table of goals."""
    rows = []
    for goal in goals():
        reached = goal.reached(result.figures)
        limit = f"{'≥' if goal.is_least else '≤'} {number(goal.limit)}"
        verdict = "not run" if reached is None else "yes" if reached[1] else "**no**"
        rows.append([goal.work, result.titles.get(goal.against, goal.against), limit])
        rows[-1] += [spread(reached[0]) if reached else "–", verdict]
    return markdown(["work", "against", "goal", "reached", ""], rows)


def page(result: Result) -> str:
    """Return all tables."""
    parts = [markdown(["", ""], [[name, text] for name, text in result.about.items()])]
    if result.left_out:
        parts.append(
            "Left out, because this machine lacks what they need: "
            + "; ".join(f"{title} ({lack})" for title, lack in result.left_out.items())
            + "."
        )
    parts += ["### The goals", goal_table(result)]
    for name in dict.fromkeys(name for name, _ in result.reports):
        parts += [f"### {result.figures.title(name)}", f"`{name}`", table(result, SCENARIOS[name])]
    return "\n\n".join(parts)


def write(result: Result) -> None:
    """Write the files. Raises ValueError for a page without the marks."""
    text = PAGE.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"Expected the marks {BEGIN} and {END} in {PAGE.name}, got none or one.")
    LATEST.parent.mkdir(exist_ok=True)
    runs: list[dict[str, Any]] = [
        {"scenario": scenario, "peer": peer, "reports": reports}
        for (scenario, peer), reports in result.reports.items()
    ]
    latest = {
        "about": dict(result.about),
        "titles": dict(result.titles),
        "left_out": dict(result.left_out),
        "runs": runs,
    }
    LATEST.write_text(json.dumps(latest, indent=1, ensure_ascii=False) + "\n")
    PICTURE.write_text(chart.picture(result.figures, result.titles))
    shown = f"![The cost of a delivery, on a logarithmic axis](images/{PICTURE.name})"
    PAGE.write_text(f"{before}{begin}\n\n{shown}\n\n{page(result)}\n\n{end}{after}")
