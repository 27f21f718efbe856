"""Token buckets and counters, on a clock that the tests move."""

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


def test_a_bucket_allows_a_burst_and_then_the_rate(clock: Clock) -> None:
    bucket = TokenBucket(2, 5, clock)
    assert taken(bucket, 10) == 5
    clock.now += 1
    assert taken(bucket, 10) == 2
    clock.now += 100
    assert taken(bucket, 10) == 5


def test_a_refusal_takes_no_token(clock: Clock) -> None:
    bucket = TokenBucket(1, 1, clock)
    assert taken(bucket, 50) == 1
    clock.now += 1
    assert bucket.take()


def test_a_rate_of_0_has_no_limit(clock: Clock) -> None:
    assert taken(TokenBucket(0, 0, clock), 1000) == 1000


def test_a_burst_below_1_still_allows_1(clock: Clock) -> None:
    assert taken(TokenBucket(0.5, 0, clock), 3) == 1


def test_an_unused_bucket_is_full_again(clock: Clock) -> None:
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
def test_a_bucket_never_allows_more_than_burst_and_rate(
    rate: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    allowed = passed = 0
    for seconds, requests in steps:
        clock.now += seconds
        passed += seconds
        allowed += taken(bucket, requests)
        assert allowed <= burst + rate * passed


def test_offences_count_within_the_window(clock: Clock) -> None:
    offences = OffenceCounter(30, clock)
    assert [offences.add("ann"), offences.add("ann"), offences.add("bob")] == [1, 2, 1]
    clock.now += 29
    assert offences.add("ann") == 3
    clock.now += 1
    assert offences.recent("ann") == 1
    assert offences.add("ann") == 2
    assert offences.recent("eve") == 0


def test_a_sweep_deletes_only_offenders_outside_the_window(clock: Clock) -> None:
    offences = OffenceCounter(30, clock)
    offences.add("ann")
    clock.now += 20
    offences.add("bob")
    clock.now += 10
    offences.sweep()
    assert set(offences._times) == {"bob"}


def test_connections_of_an_address_are_counted_up_to_the_limit() -> None:
    addresses = ConnectionCounter()
    assert [addresses.add("a", 2), addresses.add("a", 2), addresses.add("a", 2)] == [True, True, False]
    assert addresses.add("b", 2)
    addresses.remove("a")
    assert addresses.add("a", 2)
    assert not addresses.add("a", 2)
    for key in ("a", "a", "b"):
        addresses.remove(key)
    assert not addresses._open


def test_connections_are_counted_without_a_limit_too() -> None:
    addresses = ConnectionCounter()
    assert all(addresses.add("a", 0) for _ in range(100))
    assert not addresses.add("a", 100)
