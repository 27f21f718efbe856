"""``make chaos``: the long runs, and a table of how they went.

python -m tests.chaos.run                                          everything: an hour and more
python -m tests.chaos.run --on postgres --seeds 1 --messages 5000  a small one
ROOMS_CHAOS_SEED=… python -m tests.chaos.run --seeds 1             one seed again
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
from tests.chaos.sites import GROUNDS, Site

MOST_SHOWN = 30
HEADINGS = (
    *("site", "seed", "messages", "seconds", "kills", "reconnects", "resets", "lost", "doubled"),
    *("p50 s", "p99 s", "verdict"),
)


def seed_of_the_run() -> str:
    """The seed that the environment asks for, or a new one."""
    return os.environ.get("ROOMS_CHAOS_SEED") or secrets.token_hex(4)


async def judged(site: Site, plan: Plan) -> tuple[Run, list[Violation]]:
    """One run on a site that is started for it, and what is wrong with it. The logs of a bad one are kept."""
    try:
        await site.start()
        done = await run(site, plan)
    except BaseException:
        say(f"seed {plan.seed}: the run broke off; its servers' logs are in {keep(site, None, [])}")
        raise
    finally:
        site.stop()
    violations = check(done.logs)
    if violations:
        say(f"seed {plan.seed}: {len(violations)} violations; the logs are in {keep(site, done, violations)}")
    return done, violations


def keep(site: Site, done: Run | None, violations: Sequence[Violation]) -> Path:
    """Write everything that is known of a run to a folder that stays."""
    kept = Path(tempfile.mkdtemp(prefix="rooms-chaos-"))
    for server in site.servers:
        shutil.copy(server.log, kept)
    (kept / "violations").write_text("\n".join(map(str, violations)))
    if done is not None:
        (kept / "story").write_text("\n".join(done.story))
        logs = done.logs
        for name in ("sent", "acknowledged", "stored", "spells", "departures", "outages", "lists"):
            (kept / name).write_text("\n".join(map(str, getattr(logs, name))))
        for client, log in logs.clients.items():
            (kept / f"client-{client}").write_text("\n".join(map(str, log)))
        lives = [
            (each.name, each.ended, each.closes, each.events[-20:], each.troubles) for each in done.people
        ]
        (kept / "people").write_text("\n".join(map(str, lives)))
    return kept


def shown(violations: Sequence[Violation]) -> str:
    """The first of them, a line each."""
    lines = [str(each) for each in violations[:MOST_SHOWN]]
    more = len(violations) - MOST_SHOWN
    return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)


def row(name: str, done: Run, violations: Sequence[Violation]) -> tuple[Any, ...]:
    """A line of the table."""
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
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def table(rows: Sequence[Sequence[Any]]) -> str:
    """As Markdown."""
    lines = [HEADINGS, ["-" * len(each) for each in HEADINGS], *rows]
    widths = [max(len(str(line[place])) for line in lines) for place in range(len(HEADINGS))]
    return "\n".join(
        "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def say(text: str) -> None:
    """Out with it at once: a run takes minutes."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="The long runs of the oracle.")
    parser.add_argument(
        "--on",
        action="append",
        choices=GROUNDS,
        help="which sites; default: sqlite, postgres, postgres-alone",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs on each")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--senders", type=int, default=20)
    parser.add_argument(
        "--readers", type=int, default=50, help="a fifth of them slow, a fifth comes and goes"
    )
    parser.add_argument("--rate", type=float, default=400, help="messages a second, all together")
    parser.add_argument(
        "--apart", action="store_true", help="servers of their own instead of runrooms --workers"
    )
    asked = parser.parse_args()
    # A run that is told to end ends as with Ctrl-C, and takes its servers along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows = []
    for name in asked.on or ("sqlite", "postgres", "postgres-alone"):
        for number in range(asked.seeds):
            seed = seed_of_the_run() + (f"-{number}" if "ROOMS_CHAOS_SEED" in os.environ and number else "")
            say(f"{name}, seed {seed}")
            plan = Plan(
                seed=seed,
                messages=asked.messages,
                senders=asked.senders,
                readers=asked.readers,
                slow=asked.readers // 5,
                flapping=asked.readers // 5,
                rate=asked.rate,
            )
            site = Site(GROUNDS[name], asked.workers, together=not asked.apart)
            done, violations = asyncio.run(judged(site, plan))
            say(shown(violations))
            say(", ".join(f"{nemesis} {times}" for nemesis, times in sorted(done.done.items())))
            rows.append(row(name, done, violations))
            say(table(rows))
    return int(any(line[-1] != "good" for line in rows))


if __name__ == "__main__":
    sys.exit(main())
