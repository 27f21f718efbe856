"""``make chaos``: long runs of the oracle, and a table of their results.

python -m tests.chaos.run                                          all sites: an hour and more
python -m tests.chaos.run --on postgres --seeds 1 --messages 5000  a small one
ROOMS_CHAOS_SEED=… python -m tests.chaos.run --seeds 1             repeat one seed
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.checker import Violation, check
from tests.chaos.driver import Plan, Run, run
from tests.chaos.sites import BACKENDS, Site

MAX_SHOWN = 30
HEADINGS = (
    *("site", "seed", "messages", "seconds", "kills", "reconnects", "resets", "lost", "doubled"),
    *("p50 s", "p99 s", "verdict"),
)


def chosen_seed() -> str:
    """Return the seed of the environment, or a new one."""
    return os.environ.get("ROOMS_CHAOS_SEED") or secrets.token_hex(4)


async def run_and_check(site: Site, plan: Plan) -> tuple[Run, list[Violation]]:
    """Run the plan on a new site; return the run and its violations, and save the logs of a bad one."""
    try:
        await site.start()
        done = await run(site, plan)
    except BaseException:
        write(f"seed {plan.seed}: the run failed; the logs of its servers are in {save(site, None, [])}")
        raise
    finally:
        site.stop()
    violations = check(done.logs)
    if violations:
        write(
            f"seed {plan.seed}: {len(violations)} violations; the logs are in {save(site, done, violations)}"
        )
    return done, violations


def save(site: Site, done: Run | None, violations: Sequence[Violation]) -> Path:
    """Write everything about a run to a folder that is not deleted."""
    folder = Path(tempfile.mkdtemp(prefix="rooms-chaos-"))
    for server in site.servers:
        shutil.copy(server.log, folder)
    (folder / "violations").write_text("\n".join(map(str, violations)))
    if done is not None:
        (folder / "timeline").write_text("\n".join(done.timeline))
        logs = done.logs
        for name in ("sent", "acknowledged", "stored", "stays", "departures", "outages", "lists"):
            (folder / name).write_text("\n".join(map(str, getattr(logs, name))))
        for client, log in logs.clients.items():
            (folder / f"client-{client}").write_text("\n".join(map(str, log)))
        records = [
            (each.name, each.ended, each.closes, each.events[-20:], each.unexpected) for each in done.clients
        ]
        (folder / "clients").write_text("\n".join(map(str, records)))
    return folder


def summary(violations: Sequence[Violation]) -> str:
    """Return the first violations, one a line."""
    lines = [str(each) for each in violations[:MAX_SHOWN]]
    more = len(violations) - MAX_SHOWN
    return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)


def row(name: str, done: Run, violations: Sequence[Violation]) -> tuple[Any, ...]:
    """Return a line of the table."""
    kills = sum(done.done[each] for each in ("Kill", "Terminate", "Roll"))
    lost = sum(each.count for each in violations if each.kind == "lost")
    doubled = sum(each.count for each in violations if each.kind == "doubled")
    times = [f"{percentile(done.catch_ups, part):.1f}" for part in (0.5, 0.99)]
    return (
        *(name, done.plan.seed, len(done.logs.stored), round(done.seconds), kills),
        *(done.reconnects, done.resets, lost, doubled, *times),
        "good" if not violations else f"{len(violations)} violations",
    )


def percentile(values: Sequence[float], part: float) -> float:
    """Return a percentile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [HEADINGS, ["-" * len(each) for each in HEADINGS], *rows]
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def write(text: str) -> None:
    """Write a line and flush: a run takes minutes."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="The long runs of the oracle.")
    parser.add_argument(
        "--on",
        action="append",
        choices=BACKENDS,
        help="which sites; default: sqlite, postgres, postgres-alone",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs on each site")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--senders", type=int, default=20)
    parser.add_argument(
        "--readers", type=int, default=50, help="a fifth of them is slow, a fifth is flapping"
    )
    parser.add_argument("--rate", type=float, default=400, help="messages a second of all senders")
    parser.add_argument("--apart", action="store_true", help="separate servers instead of runrooms --workers")
    options = parser.parse_args()
    # A terminated run ends as with Ctrl-C, so that its servers end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows = []
    for name in options.on or ("sqlite", "postgres", "postgres-alone"):
        for number in range(options.seeds):
            seed = chosen_seed() + (f"-{number}" if "ROOMS_CHAOS_SEED" in os.environ and number else "")
            write(f"{name}, seed {seed}")
            plan = Plan(
                seed=seed,
                messages=options.messages,
                senders=options.senders,
                readers=options.readers,
                slow=options.readers // 5,
                flapping=options.readers // 5,
                rate=options.rate,
            )
            site = Site(BACKENDS[name], options.workers, together=not options.apart)
            done, violations = asyncio.run(run_and_check(site, plan))
            write(summary(violations))
            write(", ".join(f"{nemesis} {times}" for nemesis, times in sorted(done.done.items())))
            rows.append(row(name, done, violations))
            write(table(rows))
    return int(any(line[-1] != "good" for line in rows))


if __name__ == "__main__":
    sys.exit(main())
