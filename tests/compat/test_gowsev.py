"""The gowsev codec, with frames written by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from rooms.compat.gowsev import Frames, Gowsev
from rooms.conf import load_protocol
from rooms.protocol.commands import Command, Leave
from rooms.protocol.compat_commands import CompatJoin, LeaveAll, SendRawFrame, SendWithoutJoining
from rooms.protocol.errors import BadRequest
from rooms.protocol.events import (
    Closing,
    Connected,
    Direct,
    Error,
    Event,
    Joined,
    Left,
    Members,
    Message,
    Removed,
    Reply,
)
from rooms.protocol.types import User

ANN = User(name="ann", id="1", guest=False)


def decode(frame: str | bytes) -> Command | Error:
    (found,) = Gowsev().decode(frame)
    return found


def command_of(frame: str | bytes) -> tuple[type, str]:
    """Return the class and the room of a command."""
    found: Any = decode(frame)
    assert not isinstance(found, Error), frame
    return type(found), found.room


def is_invalid(frame: str | bytes) -> bool:
    found = decode(frame)
    return isinstance(found, Error) and Gowsev().encode(found) == b"Invalid message"


def published(frame: str | bytes) -> tuple[str, bytes]:
    """Return the room and the data of a ``publish``."""
    found = decode(frame)
    assert isinstance(found, SendWithoutJoining), frame
    assert (found.event, found.echo) == (None, None)
    return found.room, bytes(found.data)


def message(data: bytes) -> Message:
    return Message(
        room="news", event="message", data=Raw(data), sender=ANN, seq=1, time="2026-01-01T00:00:00.000Z"
    )


# Decoding ----------------------------------------------------------------------------------------


def test_the_four_commands_are_decoded() -> None:
    assert command_of("subscribe:news") == (CompatJoin, "news")
    assert command_of("unsubscribe:news") == (Leave, "news")
    assert isinstance(decode("unsubscribe-all"), LeaveAll)
    assert published("publish:news:hello") == ("news", b'"hello"')


def test_a_subscription_is_a_join_that_may_create_the_room() -> None:
    found = decode("subscribe:news")
    assert isinstance(found, CompatJoin)
    assert (found.create, found.if_member) == ("on_demand", "reply")


def test_text_and_binary_frames_are_decoded_alike() -> None:
    for frame in ("subscribe:v-東京", "publish:v-東京:Grüße 🦊", "unsubscribe:x y", "unsubscribe-all", "?"):
        assert decode(frame.encode()) == decode(frame)


@pytest.mark.parametrize(
    ("rest", "channel"),
    [
        ("news and more", "news"),
        ("news\tand more", "news"),
        ("news\nand more", "news"),
        ("news\rand more", "news"),
        ("news\x85more", "news"),
        ("news\xa0more", "news"),
        ("news\u2003more", "news"),
        ("news\u3000more", "news"),
        ("news\u200bmore", "news\u200bmore"),
        ("  \t\x85\u3000news", "news"),
        ("\rnews", "news"),
        ("a:b::c:", "a:b::c:"),
        (":", ":"),
        ("News", "News"),
        ("ﬁ", "ﬁ"),
        ("🦊" * 128, "🦊" * 128),
    ],
)
@pytest.mark.parametrize("command", ["subscribe", "unsubscribe"])
def test_a_channel_ends_at_the_first_white_space(command: str, rest: str, channel: str) -> None:
    assert command_of(f"{command}:{rest}") == (
        {"subscribe": CompatJoin, "unsubscribe": Leave}[command],
        channel,
    )


@pytest.mark.parametrize("command", ["subscribe", "unsubscribe"])
@pytest.mark.parametrize(
    "rest",
    ["", " ", " \t", "\nnews", "\r\nnews", " \n news", "a\x1cb", "a\x00b", "a\x7f", "a\x9f", "🦊" * 129],
)
def test_a_command_without_a_valid_channel_is_invalid(command: str, rest: str) -> None:
    assert is_invalid(f"{command}:{rest}")


@pytest.mark.parametrize(
    ("rest", "room", "body"),
    [
        ("news:", "news", b'""'),
        ("news:a:b::c:", "news", b'"a:b::c:"'),
        ("news::", "news", b'":"'),
        ("news:\n", "news", b'"\\n"'),
        ("news:unsubscribe-all", "news", b'"unsubscribe-all"'),
        ("two words:x", "two words", b'"x"'),
        (" news :x", " news ", b'"x"'),
        ('news:{"a":1}', "news", b'{"a":1}'),
    ],
)
def test_the_second_colon_of_a_publish_separates_channel_and_body(rest: str, room: str, body: bytes) -> None:
    assert published(f"publish:{rest}") == (room, body)


@pytest.mark.parametrize("rest", ["", "news", ":", ":body", "a\tb:x", "a\nb:x", "x" * 129 + ":x"])
def test_a_publish_without_a_valid_channel_or_a_second_colon_is_invalid(rest: str) -> None:
    assert is_invalid(f"publish:{rest}")


@pytest.mark.parametrize(
    "frame",
    [
        *("", "hello", "subscribe", "unsubscribe", "publish", "Subscribe:news", " subscribe:news"),
        *(
            "subscribe :news",
            "unsubscribe-all ",
            "unsubscribe-all:",
            "unsubscribe-al",
            "\x00",
            "subscribed:a",
        ),
    ],
)
def test_anything_else_is_invalid(frame: str) -> None:
    assert is_invalid(frame)
    assert is_invalid(frame.encode())


def test_bytes_that_are_not_utf_8_are_valid_in_a_body_only() -> None:
    for frame in (
        b"subscribe:\xff",
        b"unsubscribe:a\xed\xa0\x80",
        b"publish:\xff:x",
        b"\xff",
        b"\xffsubscribe:a",
    ):
        assert is_invalid(frame), frame
    assert command_of(b"subscribe:news \xff") == (CompatJoin, "news")
    assert published(b"publish:news:\xff\x00") == ("news", b'{"base64":"/wA="}')


@given(st.binary() | st.text())
@example(b"publish:a:\x80")
@example("subscribe:" + "\t" * 20_000)
def test_every_frame_is_one_command_or_error(frame: str | bytes) -> None:
    for protocol in (Gowsev(), Frames()):
        (found,) = protocol.decode(frame)
        assert isinstance(found, Command | Error)


@given(st.binary())
def test_decoding_and_encoding_a_body_gives_the_same_bytes(body: bytes) -> None:
    _, data = published(b"publish:news:" + body)
    assert Gowsev.encode_broadcast(message(data), "") == body


# Encoding ----------------------------------------------------------------------------------------


def test_a_reply_is_ok_and_an_error_is_invalid_message() -> None:
    codec = Gowsev()
    for frame in ("subscribe:a", "unsubscribe:a", "unsubscribe-all", "publish:a:b"):
        found = decode(frame)
        assert isinstance(found, Command)
        assert codec.encode(Reply(id=found.id, data={})) == b"OK"
        assert codec.encode(Error(id=found.id or UNSET, code="banned", message="No.")) == b"Invalid message"


def test_unsubscribing_without_a_subscription_is_ok() -> None:
    codec, leave, join = Gowsev(), decode("unsubscribe:a"), decode("subscribe:a")
    assert isinstance(leave, Leave)
    assert isinstance(join, CompatJoin)
    assert leave.id is not None
    assert join.id is not None
    for code in ("not_member", "room_not_found"):
        assert codec.encode(Error(id=leave.id, code=code, message="No.")) == b"OK"
        assert codec.encode(Error(id=join.id, code=code, message="No.")) == b"Invalid message"
        assert codec.encode(Error(code=code, message="No.")) == b"Invalid message"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b'"hello"', b"hello"),
        (b'""', b""),
        (b'{"text":"hi"}', b'{"text":"hi"}'),
        (b"null", b"null"),
        (b'{"base64":"/wA="}', b"\xff\x00"),
    ],
)
def test_a_message_is_encoded_as_its_body(data: bytes, body: bytes) -> None:
    assert Gowsev.encode_broadcast(message(data), "") == body
    direct = Direct(room="", event="message", data=Raw(data), sender=None, to="x")
    assert Gowsev.encode_broadcast(direct, "") == body
    assert Frames().encode(direct) == body


@pytest.mark.parametrize(
    "event",
    [
        Connected(connection="c", application="a", user=ANN, ping=25, version=1),
        Joined(room="news", user=ANN),
        Left(room="news", user=ANN, reason="left"),
        Members(room="news", count=201, joined=[], left=[]),
        Removed(room="news", reason="kicked"),
        Closing(code=4000, message="The server restarts."),
    ],
)
def test_other_events_have_no_frame(event: Event) -> None:
    assert Gowsev().encode(event) is None
    assert Gowsev.encode_broadcast(event, "") is None
    assert Frames().encode(event) is None


# Raw frames ------------------------------------------------------------------------------------------


def test_raw_frames_are_passed_to_the_extension_unchanged() -> None:
    raw = Gowsev().raw()
    assert list(raw.decode("subscribe:ä")) == [SendRawFrame(data="subscribe:ä".encode())]
    assert list(raw.decode(b"\xff")) == [SendRawFrame(data=b"\xff")]


def test_raw_frames_are_not_answered() -> None:
    raw = Gowsev().raw()
    assert raw.encode(Reply(id=None, data={})) is None
    assert raw.encode(Error(code=BadRequest.code, message="No.")) is None
    assert type(raw).encode_broadcast(message(b'"in a room"'), "") is None


def test_raw_frames_belong_to_the_same_protocol() -> None:
    raw = Gowsev().raw()
    assert load_protocol(raw.name) is Gowsev
    assert (raw.binary, raw.options.anonymous) == (Gowsev.binary, Gowsev.options.anonymous) == (True, True)
    assert raw.raw() is raw
