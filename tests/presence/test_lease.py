"""A process sweeps others only when their expired leases mean that they are gone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rooms.presence import lease as module
from rooms.presence.base import HEARTBEAT_SECONDS, LEASE_TTL
from rooms.presence.lease import SWEEP_DELAY, Lease


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Replace the clock of this process; ``clock.now`` sets it."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def lease(clock: SimpleNamespace) -> Lease:
    """Return the lease of a process that has started long ago, renewed just now."""
    lease = Lease()
    lease.renew(None)
    clock.now += SWEEP_DELAY
    renew_after(lease, SWEEP_DELAY)
    return lease


def renew_after(lease: Lease, passed: float) -> None:
    """Renew a lease when this time has passed by the clock of the store."""
    lease.renew(LEASE_TTL - passed)


def test_a_lease_begins_with_its_first_renewal(clock: SimpleNamespace) -> None:
    lease = Lease()
    assert not lease.begun
    lease.renew(None)
    assert lease.begun


def test_a_process_that_starts_waits_before_it_sweeps(clock: SimpleNamespace) -> None:
    lease = Lease()
    lease.renew(None)
    clock.now += SWEEP_DELAY - 1
    assert not lease.may_sweep()
    clock.now += 1
    assert lease.may_sweep()


def test_regular_renewals_allow_sweeps(lease: Lease, clock: SimpleNamespace) -> None:
    for _ in range(20):
        clock.now += HEARTBEAT_SECONDS
        renew_after(lease, HEARTBEAT_SECONDS)
        assert lease.may_sweep()


def test_an_outage_of_about_a_lease_delays_sweeps(lease: Lease, clock: SimpleNamespace) -> None:
    away = LEASE_TTL - SWEEP_DELAY + 1
    clock.now += away
    renew_after(lease, away)
    assert not lease.may_sweep()
    clock.now += SWEEP_DELAY
    assert lease.may_sweep()


@pytest.mark.parametrize("jump", [-HEARTBEAT_SECONDS - 1, HEARTBEAT_SECONDS + 1])
def test_a_jump_of_the_stores_clock_delays_sweeps(lease: Lease, clock: SimpleNamespace, jump: float) -> None:
    clock.now += HEARTBEAT_SECONDS
    renew_after(lease, HEARTBEAT_SECONDS + jump)
    assert not lease.may_sweep()


def test_a_lost_lease_delays_sweeps(lease: Lease, clock: SimpleNamespace) -> None:
    clock.now += HEARTBEAT_SECONDS
    lease.renew(None)
    assert not lease.may_sweep()
