"""The lease of a process: when an expired lease of another one means that its process is gone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rooms.presence import lease
from rooms.presence.base import HEARTBEAT_SECONDS, LEASE_TTL
from rooms.presence.lease import SWEEP_DELAY, Lease


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of this process; ``clock.now`` moves it."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def steady(clock: SimpleNamespace) -> Lease:
    """A lease whose process may sweep: it was renewed in time since the start."""
    held = Lease()
    held.renew(None)
    for _ in range(round(SWEEP_DELAY / HEARTBEAT_SECONDS)):
        clock.now += HEARTBEAT_SECONDS
        held.renew(LEASE_TTL - HEARTBEAT_SECONDS)
    return held


def test_a_process_that_starts_does_not_sweep_before_the_others_had_time(clock: SimpleNamespace) -> None:
    held = Lease()
    assert not held.begun
    held.renew(None)
    assert held.begun
    assert not held.may_sweep()
    clock.now += SWEEP_DELAY - 0.1
    assert not held.may_sweep()
    clock.now += 0.1
    assert held.may_sweep()


def test_renewals_in_time_keep_the_permission(steady: Lease, clock: SimpleNamespace) -> None:
    clock.now += HEARTBEAT_SECONDS
    steady.renew(LEASE_TTL - HEARTBEAT_SECONDS)
    assert steady.may_sweep()


@pytest.mark.parametrize(
    ("passed", "left"),
    [
        # The store was away for about a lease.
        (LEASE_TTL - SWEEP_DELAY + 1, SWEEP_DELAY - 1),
        # The store lost the lease.
        (HEARTBEAT_SECONDS, None),
        # The store's clock jumped ahead, and back.
        (HEARTBEAT_SECONDS, LEASE_TTL - HEARTBEAT_SECONDS - HEARTBEAT_SECONDS - 1),
        (HEARTBEAT_SECONDS, LEASE_TTL + HEARTBEAT_SECONDS),
    ],
)
def test_after_an_outage_or_a_jump_of_the_clock_the_others_have_time_again(
    steady: Lease, clock: SimpleNamespace, passed: float, left: float | None
) -> None:
    clock.now += passed
    steady.renew(left)
    assert not steady.may_sweep()
    clock.now += SWEEP_DELAY
    assert steady.may_sweep()
