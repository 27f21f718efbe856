"""Whatever comes late, twice or early: each number goes through once and in order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooms.hub.sequencer import Sequencer


def started(position: int = 0) -> Sequencer[str]:
    sequencer: Sequencer[str] = Sequencer()
    assert sequencer.start(position) == []
    return sequencer


def offered(sequencer: Sequencer[str], *numbers: int) -> list[str]:
    return [item for number in numbers for item in sequencer.offer(number, str(number))]


def test_what_is_in_order_goes_through_at_once() -> None:
    sequencer = started()
    assert sequencer.offer(1, "1") == ["1"]
    assert sequencer.offer(2, "2") == ["2"]
    assert (sequencer.position, sequencer.has_gap, sequencer.earliest) == (2, False, None)


def test_a_double_is_dropped_whether_told_or_kept() -> None:
    sequencer = started()
    assert offered(sequencer, 1, 1, 3, 3, 1) == ["1"]
    assert offered(sequencer, 2) == ["2", "3"]
    assert offered(sequencer, 3, 2) == []


def test_what_is_early_waits_for_what_is_missing() -> None:
    sequencer = started()
    assert offered(sequencer, 3, 4, 6) == []
    assert (sequencer.position, sequencer.has_gap, sequencer.earliest) == (0, True, 3)
    assert offered(sequencer, 1, 2) == ["1", "2", "3", "4"]
    assert (sequencer.position, sequencer.has_gap, sequencer.earliest) == (4, True, 6)


def test_before_the_start_everything_is_kept() -> None:
    sequencer: Sequencer[str] = Sequencer()
    assert offered(sequencer, 7, 5, 6, 9) == []
    assert (sequencer.position, sequencer.has_gap) == (None, False)
    assert sequencer.start(5) == ["6", "7"]
    assert sequencer.has_gap


def test_a_start_only_moves_forward() -> None:
    sequencer = started(5)
    assert sequencer.start(3) == []
    assert sequencer.position == 5
    assert offered(sequencer, 8) == []
    assert sequencer.start(7) == ["8"]
    assert sequencer.position == 8


class Doubling(Sequencer[str]):
    """Broken: lets doubles through."""

    def offer(self, seq: int, item: str) -> list[str]:
        if self.position is not None and seq <= self.position:
            return [item]
        return super().offer(seq, item)


class Hasty(Sequencer[str]):
    """Broken: does not wait for what is missing."""

    def offer(self, seq: int, item: str) -> list[str]:
        if self.position is not None and seq > self.position:
            self.position = seq
            return [item]
        return super().offer(seq, item)


class Forgetful(Sequencer[str]):
    """Broken: drops what comes early."""

    def offer(self, seq: int, item: str) -> list[str]:
        if self.position is not None and seq > self.position + 1:
            return []
        return super().offer(seq, item)


def check_order(kind: type[Sequencer[str]], position: int, numbers: list[int], start_after: int) -> None:
    """Every number above the position comes out once, in order, wherever the start falls."""
    sequencer = kind()
    out: list[str] = []
    for place, number in enumerate(numbers):
        if place == start_after:
            out += sequencer.start(position)
        out += sequencer.offer(number, str(number))
    if start_after >= len(numbers):
        out += sequencer.start(position)
    last = max(numbers, default=0)
    assert out == [str(number) for number in range(position + 1, last + 1)]
    assert not sequencer.has_gap
    assert not sequencer._early


@st.composite
def arrivals(draw: Any) -> tuple[int, list[int], int]:
    last = draw(st.integers(1, 12))
    doubles = draw(st.lists(st.integers(1, last), max_size=8))
    numbers = draw(st.permutations([*range(1, last + 1), *doubles]))
    return draw(st.integers(0, last)), list(numbers), draw(st.integers(0, len(numbers)))


@given(arrivals())
def test_any_order_with_doubles_comes_out_in_order(arrival: tuple[int, list[int], int]) -> None:
    check_order(Sequencer, *arrival)


@pytest.mark.parametrize("broken", [Doubling, Hasty, Forgetful])
def test_the_check_above_catches_broken_sequencers(broken: type[Sequencer[str]]) -> None:
    with pytest.raises(AssertionError):
        check_order(broken, 0, [2, 1, 1, 3], 0)
