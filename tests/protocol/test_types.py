"""The values in commands and events are frozen, slotted values too."""

from __future__ import annotations

import pytest

from rooms.protocol import results
from rooms.protocol.types import Position, User, Value
from tests.protocol.structs import check_struct, structs_below

VALUES = structs_below(Value)


@pytest.mark.parametrize("kind", VALUES)
def test_every_value_is_frozen_slotted_and_keyword_only(kind: type[Value]) -> None:
    check_struct(kind)


def test_the_data_of_replies_are_values() -> None:
    assert results.JoinData in VALUES


def test_a_value_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        User(name="ann", id="1", guest=False).name = "bob"  # type: ignore[misc]


def test_values_with_equal_fields_are_equal() -> None:
    assert Position(epoch="e", seq=1) != Position(epoch="e", seq=2)
    assert Position(epoch="e", seq=1) == Position(epoch="e", seq=1)
