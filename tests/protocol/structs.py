"""What all commands, events and values have in common."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest


def structs_below(base: type[msgspec.Struct]) -> list[Any]:
    """Return the subclasses of ``base`` in the package, at any depth."""
    below = [each for child in base.__subclasses__() for each in (child, *structs_below(child))]
    return [each for each in below if each.__module__.startswith("rooms.protocol.")]


def check_struct(kind: Any) -> None:
    """Assert that a struct is frozen, has slots and takes keyword arguments only."""
    assert kind.__struct_config__.frozen
    assert not hasattr(kind, "__dict__") or "__dict__" not in vars(kind)
    with pytest.raises(TypeError):
        kind("positional")
