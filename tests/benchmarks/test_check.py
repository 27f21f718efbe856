"""The guard against slowing down: what it counts, and when it fails."""

from __future__ import annotations

import sys

import pytest

from benchmarks.bytecodes import bytecodes_of
from benchmarks.check import VERSION, Figures, report


async def work(rounds: int) -> None:
    for _ in range(rounds):
        pass


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="newer Pythons tell a tracer only of some bytecodes")
async def test_the_same_is_counted_every_time_and_more_where_more_is_done() -> None:
    counts = [await bytecodes_of(lambda rounds=rounds: work(rounds)) for rounds in (10, 10, 20, 30)]
    assert counts[0] == counts[1]
    assert 0 < counts[2] - counts[1] == counts[3] - counts[2]


@pytest.mark.parametrize(
    ("now", "fast"),
    [
        (Figures(109.0, 5.0), True),
        (Figures(111.0, 5.0), False),
        (Figures(100.0, 9.9), True),
        (Figures(100.0, 10.1), False),
        (Figures(50.0, 1.0), True),
        (Figures(102.0), True),
    ],
)
def test_path_slower_than_its_committed_figures_is_named(now: Figures, fast: bool) -> None:
    table, verdict = report({"a ping": now}, {"a ping": Figures(100.0, 5.0, most=1.1)})
    assert verdict is fast
    assert ("Too slow: a ping." in table) is not fast


def test_path_without_committed_figures_is_named_and_not_too_slow() -> None:
    table, verdict = report({"a ping": Figures(100.0, 5.0)}, {})
    assert verdict
    assert f"No committed figures for Python {VERSION}: a ping." in table
