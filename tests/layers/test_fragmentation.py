"""Long messages in parts: they arrive complete, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooms.layers import fragmentation
from rooms.layers.fragmentation import Fragmenter, Reassembler

OTHER = b"other..."


def join(joining: Reassembler, pieces: list[bytes]) -> list[bytes]:
    return [message for piece in pieces if (message := joining.add(piece)) is not None]


@given(st.lists(st.binary(max_size=300), max_size=10), st.integers(min_value=17, max_value=64))
def test_messages_of_any_length_are_joined(messages: list[bytes], size: int) -> None:
    parting = Fragmenter(size)
    pieces = [piece for message in messages for piece in parting.parts(message)]
    assert all(len(piece) <= size for piece in pieces)
    assert join(Reassembler(OTHER), pieces) == messages


@given(st.data())
def test_a_lost_part_loses_only_its_message(data: st.DataObject) -> None:
    parting = Fragmenter(20)
    messages = [bytes([number]) * 10 for number in range(4)]
    pieces = [list(parting.parts(message)) for message in messages]
    whose = data.draw(st.integers(min_value=0, max_value=3))
    del pieces[whose][data.draw(st.integers(min_value=0, max_value=len(pieces[whose]) - 1))]
    arrived = join(Reassembler(OTHER), [piece for each in pieces for piece in each])
    assert arrived == messages[:whose] + messages[whose + 1 :]


def test_a_message_of_another_sender_ends_an_incomplete_one() -> None:
    ours, others = Fragmenter(20), Fragmenter(20)
    first, second = list(ours.parts(b"a" * 8)), list(others.parts(b"b" * 8))
    assert join(Reassembler(OTHER), [first[0], *second, first[1]]) == [b"b" * 8]


def test_a_message_is_not_completed_by_the_part_of_another() -> None:
    ours, others = Fragmenter(20), Fragmenter(20)
    first, second = list(ours.parts(b"a" * 8)), list(others.parts(b"b" * 8))
    assert join(Reassembler(OTHER), [first[0], second[1], *ours.parts(b"a")]) == [b"a"]


def test_a_duplicate_part_counts_once() -> None:
    pieces = list(Fragmenter(20).parts(b"abcdefghij"))
    assert join(Reassembler(OTHER), [pieces[0], *pieces]) == [b"abcdefghij"]


def test_own_parts_are_skipped() -> None:
    ours, others = Fragmenter(20), Fragmenter(20)
    pieces = [*ours.parts(b"mine"), *others.parts(b"yours")]
    assert join(Reassembler(ours.sender), pieces) == [b"yours"]


def test_a_message_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragmentation, "MAX_PARTS", 3)
    parting = Fragmenter(20)
    assert len(list(parting.parts(b"x" * 12))) == 3
    with pytest.raises(ValueError, match=r"at most 12 bytes, got 13"):
        list(parting.parts(b"x" * 13))


def test_bytes_without_a_head_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes, got 5"):
        Reassembler(OTHER).add(b"short")


def test_a_message_of_too_many_parts_is_refused() -> None:
    head = fragmentation._HEAD.pack(b"a sender", 1, 0, fragmentation.MAX_PARTS + 1)
    with pytest.raises(ValueError, match="at most 4096 parts, got 4097"):
        Reassembler(OTHER).add(head + b"x")
