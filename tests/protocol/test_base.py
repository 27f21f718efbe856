"""The interface of protocols, and the error event of a failed command."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from rooms.protocol.base import Protocol, error_event
from rooms.protocol.errors import NameTaken, RoomFull
from rooms.protocol.events import Error


def test_the_error_event_has_the_id_of_the_failed_command() -> None:
    assert error_event(7, RoomFull("Full.")) == Error(id=7, code="room_full", message="Full.", retry=False)
    assert error_event("a", NameTaken("Taken.")).retry is True


def test_the_error_event_for_a_command_without_an_id_has_none() -> None:
    assert error_event(None, RoomFull("Full.")).id is UNSET


def test_a_protocol_must_decode_and_encode() -> None:
    with pytest.raises(TypeError):
        Protocol()  # type: ignore[abstract]


def test_separate_text_frames_are_the_default() -> None:
    assert (Protocol.binary, Protocol.separator, Protocol.options.subprotocol) == (False, None, None)
