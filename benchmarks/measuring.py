"""Runs the rounds: every scenario with all its peers, one after the other.

Every second round has the reverse order, so that other load affects all peers alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.peers import Peer
from benchmarks.scenarios import Scenario
from benchmarks.serving import CannotServe, Ground

#: The reports of each scenario and peer, by their names.
Reports = dict[tuple[str, str], list[dict[str, Any]]]


def turns(
    scenarios: Sequence[Scenario], peers: Sequence[Peer], rounds: int
) -> Iterator[tuple[int, Scenario, Peer]]:
    """Yield every run in order."""
    for number in range(rounds):
        order = peers if number % 2 == 0 else peers[::-1]
        for scenario in scenarios:
            yield from ((number, scenario, peer) for peer in order if peer.takes(scenario))


def measure(
    program: Path,
    ground: Ground,
    runs: Sequence[tuple[int, Scenario, Peer]],
    *,
    members: int,
    seconds: float,
    report: Callable[[str], None],
) -> Reports:
    """Execute the runs and report each; one that failed is kept with its fault."""
    reports: Reports = {}
    for position, (number, scenario, peer) in enumerate(runs, start=1):
        result = one(program, ground, scenario, peer, scenario.arguments(members, seconds))
        reports.setdefault((scenario.name, peer.name), []).append(result)
        done = f"{position}/{len(runs)}  round {number + 1}"
        report(f"{done}  {scenario.name:10} {peer.name:24} {line(scenario, result)}")
    return reports


def one(
    program: Path, ground: Ground, scenario: Scenario, peer: Peer, arguments: Sequence[str]
) -> dict[str, Any]:
    """Start a server, run the scenario and return the report."""
    protocol = "durable" if scenario.is_stored else peer.protocol
    path = [] if peer.path is None else ["--path", peer.path]
    try:
        with ground.serve(peer) as (port, pids):
            return load.run(program, protocol, port, pids, [*arguments, *path])
    except CannotServe as error:
        return {"fault": f"the server does not start: {error}"}


def line(scenario: Scenario, report: dict[str, Any]) -> str:
    """Return a report as a line."""
    if report["fault"]:
        return f"FAULT: {report['fault']}"
    if scenario.scenario == "connect":
        return (
            f"{report['connects_per_second']:9.0f}/s  {report['connect_cpu_us']:8.1f} µs  "
            f"{report['connection_kb']:6.1f} kB"
        )
    return (
        f"{report['deliveries_per_second']:9.0f}/s  {report['cpu_us']:8.2f} µs  "
        f"p50 {report['p50_ms']:.1f} ms  p99 {report['p99_ms']:.1f} ms  "
        f"generator {report['generator_cores']:.2f}"
    )
