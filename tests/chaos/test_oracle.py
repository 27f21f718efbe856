"""A minute of all faults at once: no acknowledged message is lost, doubled or reordered.

Workers are killed, Redis restarts empty, the database is locked, the channel layer is unreliable, and clients
reconnect. The long runs are those of ``make chaos``.
"""

from __future__ import annotations

import pytest

from tests.chaos.driver import Plan
from tests.chaos.nemeses import DatabaseLocked, Kill, LayerFails, RedisDies, Terminate
from tests.chaos.run import chosen_seed, row, run_and_check, summary, table, write
from tests.chaos.sites import BACKENDS, Site

# It starts its own PostgreSQL, and a minute of waiting fits beside the other tests of the first run.
pytestmark = pytest.mark.any_database


async def test_no_message_is_lost_doubled_or_reordered(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(
        seed=chosen_seed(),
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
    done, violations = await run_and_check(Site(BACKENDS["postgres"], workers=2, together=True), plan)
    with capsys.disabled():
        write(f"\n{table([row('postgres', done, violations)])}")
    assert not violations, f"seed {plan.seed}\n{summary(violations)}"
