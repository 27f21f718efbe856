"""Commands, those of the compatibility protocols included, are frozen, slotted values."""

from __future__ import annotations

import pytest

from rooms.protocol import compat_commands
from rooms.protocol.commands import Command, Ping
from tests.protocol.structs import check_struct, structs_below

COMMANDS = structs_below(Command)


@pytest.mark.parametrize("kind", COMMANDS)
def test_every_command_is_frozen_slotted_and_keyword_only(kind: type[Command]) -> None:
    check_struct(kind)


def test_a_command_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Ping().other = 1  # type: ignore[attr-defined]


def test_the_tags_of_commands_are_unique() -> None:
    assert compat_commands.CompatJoin in COMMANDS
    tags = [each.__struct_config__.tag for each in COMMANDS]
    assert len(tags) == len(set(tags))
