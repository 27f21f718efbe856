"""Errors are wire answers; native protocol, sections 7 and 8."""

from __future__ import annotations

import pytest

from rooms.protocol import errors
from rooms.protocol.errors import CloseCode, ProtocolError, RoomsError, Unavailable

CODES = {
    *("bad_request", "unknown_type", "reserved_event", "not_logged_in", "login_refused", "name_taken"),
    *("bad_token", "permission_denied", "application_full", "room_not_found", "room_exists", "room_full"),
    *("room_closed", "bad_password", "banned", "muted", "not_member", "not_sender", "user_not_found"),
    # Only for protocols in which a second join is an error.
    "already_member",
    *("message_too_large", "too_many_rooms", "rate_limited", "rejected", "unavailable", "internal_error"),
}
CLOSE_CODES = {
    # The client closed the connection, or asked for it.
    "normal": 1000,
    "server_restart": 4000,
    "slow_consumer": 4001,
    "heartbeat_timeout": 4002,
    "resync": 4003,
    "internal_error": 4004,
    "session_expired": 4005,
    "rate_limited": 4006,
    "overloaded": 4007,
    "permissions_changed": 4008,
    "bad_frame": 4500,
    "not_permitted": 4501,
    "login_timeout": 4502,
    "kicked": 4503,
    "banned": 4504,
    "too_many_connections": 4505,
    "replaced": 4506,
    "frame_too_large": 4507,
    "flooding": 4508,
    "no_such_application": 4509,
    "logged_out": 4510,
}

CLASSES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, RoomsError)]


def test_the_codes_are_those_of_the_protocol() -> None:
    assert {each.code for each in CLASSES} == CODES


def test_the_close_codes_are_those_of_the_protocol() -> None:
    assert {code.name.lower(): int(code) for code in CloseCode} == CLOSE_CODES


@pytest.mark.parametrize("error", CLASSES)
def test_the_argument_is_the_message(error: type[RoomsError]) -> None:
    raised = error("Room lobby is full.")
    assert raised.message == str(raised) == "Room lobby is full."


def test_errors_that_may_succeed_later_have_retry() -> None:
    assert {each.code for each in CLASSES if each.retry} == {
        *("name_taken", "application_full", "rate_limited", "unavailable"),
    }


def test_an_instance_may_override_retry() -> None:
    assert errors.RoomFull("Full.", retry=True).retry is True
    assert Unavailable("Gone.", retry=False).retry is False
    assert errors.RoomFull("Full.").retry is False


def test_a_protocol_error_has_a_close_code() -> None:
    assert ProtocolError("Not JSON.").close_code is CloseCode.BAD_FRAME
    assert ProtocolError("Too long.", CloseCode.FRAME_TOO_LARGE).close_code is CloseCode.FRAME_TOO_LARGE
