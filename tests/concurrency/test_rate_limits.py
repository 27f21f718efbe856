"""Token buckets and counters, on a clock that only moves when told to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooms.concurrency.rate_limits import ConnectionCounter, OffenceCounter, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(bucket: TokenBucket, times: int) -> int:
    return sum(bucket.take() for _ in range(times))


def test_a_burst_and_then_the_rate(clock: Clock) -> None:
    bucket = TokenBucket(2, 5, clock)
    assert taken(bucket, 10) == 5
    clock.now += 1
    assert taken(bucket, 10) == 2
    clock.now += 100
    assert taken(bucket, 10) == 5


def test_what_is_refused_costs_nothing(clock: Clock) -> None:
    bucket = TokenBucket(1, 1, clock)
    assert taken(bucket, 50) == 1
    clock.now += 1
    assert bucket.take()


def test_a_rate_of_nothing_is_without_limit(clock: Clock) -> None:
    assert taken(TokenBucket(0, 0, clock), 1000) == 1000


def test_a_burst_below_one_still_lets_one_through(clock: Clock) -> None:
    assert taken(TokenBucket(0.5, 0, clock), 3) == 1


def test_a_bucket_that_nobody_used_lately_is_full(clock: Clock) -> None:
    bucket = TokenBucket(1, 2, clock)
    assert bucket.is_full()
    bucket.take()
    assert not bucket.is_full()
    clock.now += 1
    assert bucket.is_full()


@given(
    rate=st.integers(1, 50),
    burst=st.integers(1, 50),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=20),
)
def test_never_more_than_burst_and_rate_allow(rate: int, burst: int, steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    through = passed = 0
    for seconds, asked in steps:
        clock.now += seconds
        passed += seconds
        through += taken(bucket, asked)
        assert through <= burst + rate * passed


def test_strikes_count_within_the_window(clock: Clock) -> None:
    strikes = OffenceCounter(30, clock)
    assert [strikes.add("ann"), strikes.add("ann"), strikes.add("bob")] == [1, 2, 1]
    clock.now += 29
    assert strikes.add("ann") == 3
    clock.now += 1
    assert strikes.recent("ann") == 1
    assert strikes.add("ann") == 2
    assert strikes.recent("nobody") == 0


def test_a_sweep_forgets_what_lies_outside_the_window_and_nothing_else(clock: Clock) -> None:
    strikes = OffenceCounter(30, clock)
    strikes.add("ann")
    clock.now += 20
    strikes.add("bob")
    clock.now += 10
    strikes.sweep()
    assert set(strikes._times) == {"bob"}


def test_addresses_are_counted_and_let_go() -> None:
    addresses = ConnectionCounter()
    assert [addresses.add("a", 2), addresses.add("a", 2), addresses.add("a", 2)] == [True, True, False]
    assert addresses.add("b", 2)
    addresses.remove("a")
    assert addresses.add("a", 2)
    assert not addresses.add("a", 2)
    for key in ("a", "a", "b"):
        addresses.remove(key)
    assert not addresses._open


def test_without_limit_addresses_are_counted_all_the_same() -> None:
    addresses = ConnectionCounter()
    assert all(addresses.add("a", 0) for _ in range(100))
    assert not addresses.add("a", 100)
