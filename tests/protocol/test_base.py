"""The seam: what a protocol has to have, and how an error becomes an answer."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from rooms.protocol.base import Protocol, error_event
from rooms.protocol.errors import NameTaken, RoomFull
from rooms.protocol.events import Error


def test_an_error_answers_the_request_that_failed() -> None:
    assert error_event(7, RoomFull("Full.")) == Error(id=7, code="room_full", message="Full.", retry=False)
    assert error_event("a", NameTaken("Taken.")).retry is True


def test_an_answer_to_a_request_without_id_has_none() -> None:
    assert error_event(None, RoomFull("Full.")).id is UNSET


def test_a_protocol_has_to_read_and_to_write() -> None:
    with pytest.raises(TypeError):
        Protocol()  # type: ignore[abstract]


def test_text_frames_each_by_itself_are_the_default() -> None:
    assert (Protocol.binary, Protocol.separator, Protocol.options.subprotocol) == (False, None, None)
