"""Items that arrive late, twice or early are passed on once and in order."""

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


def test_items_in_order_are_passed_on_at_once() -> None:
    sequencer = started()
    assert sequencer.offer(1, "1") == ["1"]
    assert sequencer.offer(2, "2") == ["2"]
    assert (sequencer.position, sequencer.has_gap, sequencer.earliest) == (2, False, None)


def test_a_duplicate_is_dropped_whether_it_was_passed_on_or_waits() -> None:
    sequencer = started()
    assert offered(sequencer, 1, 1, 3, 3, 1) == ["1"]
    assert offered(sequencer, 2) == ["2", "3"]
    assert offered(sequencer, 3, 2) == []


def test_an_early_item_waits_for_the_missing_ones() -> None:
    sequencer = started()
    assert offered(sequencer, 3, 4, 6) == []
    assert (sequencer.position, sequencer.has_gap, sequencer.earliest) == (0, True, 3)
    assert offered(sequencer, 1, 2) == ["1", "2", "3", "4"]
    assert (sequencer.position, sequencer.has_gap, sequencer.earliest) == (4, True, 6)


def test_before_the_start_every_item_waits() -> None:
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


class PassesDuplicates(Sequencer[str]):
    """Broken: passes duplicates on."""

    def offer(self, seq: int, item: str) -> list[str]:
        if self.position is not None and seq <= self.position:
            return [item]
        return super().offer(seq, item)


class SkipsGaps(Sequencer[str]):
    """Broken: does not wait for missing items."""

    def offer(self, seq: int, item: str) -> list[str]:
        if self.position is not None and seq > self.position:
            self.position = seq
            return [item]
        return super().offer(seq, item)


class DropsEarly(Sequencer[str]):
    """Broken: drops early items."""

    def offer(self, seq: int, item: str) -> list[str]:
        if self.position is not None and seq > self.position + 1:
            return []
        return super().offer(seq, item)


def check_order(kind: type[Sequencer[str]], position: int, numbers: list[int], start_after: int) -> None:
    """Every number above the position is passed on once, in order, whenever the sequencer starts."""
    sequencer = kind()
    out: list[str] = []
    for index, number in enumerate(numbers):
        if index == start_after:
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
    duplicates = draw(st.lists(st.integers(1, last), max_size=8))
    numbers = draw(st.permutations([*range(1, last + 1), *duplicates]))
    return draw(st.integers(0, last)), list(numbers), draw(st.integers(0, len(numbers)))


@given(arrivals())
def test_any_order_with_duplicates_is_passed_on_in_order(arrival: tuple[int, list[int], int]) -> None:
    check_order(Sequencer, *arrival)


@pytest.mark.parametrize("broken", [PassesDuplicates, SkipsGaps, DropsEarly])
def test_the_check_of_the_order_finds_broken_sequencers(broken: type[Sequencer[str]]) -> None:
    with pytest.raises(AssertionError):
        check_order(broken, 0, [2, 1, 1, 3], 0)
