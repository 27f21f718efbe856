"""A minute of everything at once: thousands of messages, workers that die, Redis that comes back empty, a
locked database, a channel layer that lies, people who come and go. Nothing that was acknowledged is lost,
doubled or reordered. The long runs are in ``make chaos``.
"""

from __future__ import annotations

import pytest

from tests.chaos.driver import Plan
from tests.chaos.nemeses import DatabaseLocked, Kill, LayerFails, RedisDies, Terminate
from tests.chaos.run import judged, row, say, seed_of_the_run, shown, table
from tests.chaos.sites import GROUNDS, Site
from tests.servers import on_postgres

pytestmark = pytest.mark.skipif(not on_postgres(), reason="it takes a minute, and runs on PostgreSQL")


async def test_nothing_is_lost_doubled_or_reordered(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(
        seed=seed_of_the_run(),
        messages=2000,
        senders=8,
        readers=12,
        slow=2,
        flapping=3,
        rate=60,
        quiet_seconds=4,
        nemeses=(Kill, Kill, Kill, Terminate, RedisDies, LayerFails, DatabaseLocked),
        pauses=(0.5, 1.5),
    )
    done, violations = await judged(Site(GROUNDS["postgres"], workers=2, together=True), plan)
    with capsys.disabled():
        say(f"\n{table([row('postgres', done, violations)])}")
    assert not violations, f"seed {plan.seed}\n{shown(violations)}"
