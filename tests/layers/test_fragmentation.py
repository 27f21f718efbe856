"""Long messages in parts: whole again, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooms.layers import fragmentation
from rooms.layers.fragmentation import Fragmenter, Reassembler

NOBODY = b"nobody.."


def join(joining: Reassembler, pieces: list[bytes]) -> list[bytes]:
    return [message for piece in pieces if (message := joining.add(piece)) is not None]


@given(st.lists(st.binary(max_size=300), max_size=10), st.integers(min_value=17, max_value=64))
def test_messages_of_any_length(messages: list[bytes], size: int) -> None:
    parting = Fragmenter(size)
    pieces = [piece for message in messages for piece in parting.context(message)]
    assert all(len(piece) <= size for piece in pieces)
    assert join(Reassembler(NOBODY), pieces) == messages


@given(st.data())
def test_a_message_of_which_a_part_is_lost_is_lost_alone(data: st.DataObject) -> None:
    parting = Fragmenter(20)
    messages = [bytes([number]) * 10 for number in range(4)]
    pieces = [list(parting.context(message)) for message in messages]
    whose = data.draw(st.integers(min_value=0, max_value=3))
    del pieces[whose][data.draw(st.integers(min_value=0, max_value=len(pieces[whose]) - 1))]
    arrived = join(Reassembler(NOBODY), [piece for each in pieces for piece in each])
    assert arrived == messages[:whose] + messages[whose + 1 :]


def test_what_another_sent_in_between_ends_what_was_begun() -> None:
    ours, others = Fragmenter(20), Fragmenter(20)
    first, second = list(ours.context(b"a" * 8)), list(others.context(b"b" * 8))
    assert join(Reassembler(NOBODY), [first[0], *second, first[1]]) == [b"b" * 8]


def test_a_message_is_not_finished_with_the_part_of_another() -> None:
    ours, others = Fragmenter(20), Fragmenter(20)
    first, second = list(ours.context(b"a" * 8)), list(others.context(b"b" * 8))
    assert join(Reassembler(NOBODY), [first[0], second[1], *ours.context(b"a")]) == [b"a"]


def test_a_part_that_comes_twice_counts_once() -> None:
    pieces = list(Fragmenter(20).context(b"abcdefghij"))
    assert join(Reassembler(NOBODY), [pieces[0], *pieces]) == [b"abcdefghij"]


def test_ones_own_are_passed_over() -> None:
    ours, others = Fragmenter(20), Fragmenter(20)
    pieces = [*ours.context(b"mine"), *others.context(b"yours")]
    assert join(Reassembler(ours.sender), pieces) == [b"yours"]


def test_a_message_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragmentation, "MOST_PARTS", 3)
    parting = Fragmenter(20)
    assert len(list(parting.context(b"x" * 12))) == 3
    with pytest.raises(ValueError, match=r"13 bytes is sent. Lawful: 12 at most"):
        list(parting.context(b"x" * 13))


def test_what_is_no_part_is_refused() -> None:
    with pytest.raises(ValueError, match="Lawful: 16 at least"):
        Reassembler(NOBODY).add(b"short")


def test_a_part_of_more_than_may_be_is_refused() -> None:
    head = fragmentation._HEAD.pack(b"somebody", 1, 0, fragmentation.MOST_PARTS + 1)
    with pytest.raises(ValueError, match=r"A part of 4097 came\. Lawful: 4096 at most"):
        Reassembler(NOBODY).add(head + b"x")
