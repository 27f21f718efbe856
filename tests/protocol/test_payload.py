"""Conversion between payloads and JSON values is lossless in both directions."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from rooms.protocol.payload import from_bytes, to_bytes
from rooms.protocol.strict_json import MAX_DEPTH


def value_of(payload: bytes) -> Any:
    return json.loads(bytes(from_bytes(payload)))


def wrapped(payload: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(payload).decode()}


def wrapped_text(payload: bytes) -> bytes:
    return json.dumps(wrapped(payload)).encode()


def as_json(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON, where 1, 1.0 and true all differ."""
    return repr(one) == repr(other)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


# Round trips of bytes -----------------------------------------------------------------------------

TEXTS = st.sampled_from(
    ["", "a", '"', "\\", "1", "{}", "[", "]", "null", '{"base64":"', "/w==", '"}', " ", "\n"]
)
PIECES = st.lists(TEXTS | st.text(max_size=3), max_size=6).map("".join)


def quoted(text: str, times: int) -> str:
    for _ in range(times):
        text = msgspec.json.encode(text).decode()
    return text


def wrapped_again(payload: bytes, times: int) -> bytes:
    for _ in range(times):
        payload = json.dumps(wrapped(payload), separators=(",", ":")).encode()
    return payload


payloads = st.one_of(
    st.binary(max_size=40),
    PIECES.map(str.encode),
    st.builds(quoted, PIECES, st.integers(0, 4)).map(str.encode),
    st.builds(wrapped_again, st.binary(max_size=6), st.integers(1, 4)),
    st.builds(
        lambda payload, times: quoted(payload.decode(), times).encode(),
        st.builds(wrapped_again, st.binary(max_size=6), st.integers(1, 2)),
        st.integers(1, 3),
    ),
)


@given(payloads)
@example(b'"123"')
@example(b'"12\\u0033"')
@example(b'"\\"123\\""')
@example(b' "123"')
@example(b'{"base64":"/w=="}')
@example(b'{ "base64" : "\\/w==" }')
@example(b'{"base64":"/w==","base64":"/w=="}')
@example(b'{"base64":"aGVsbG8="}')
@example(b'[\n{"type":"closing"}\n]')
def test_bytes_survive_the_round_trip(payload: bytes) -> None:
    data = bytes(from_bytes(payload))
    json.loads(data)
    assert b"\n" not in data
    assert to_bytes(from_bytes(payload)) == payload


# Round trips of values ----------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    PIECES,
    st.builds(quoted, PIECES, st.integers(0, 4)),
    payloads.map(lambda payload: payload.decode(errors="replace")),
)
values = st.recursive(
    scalars | payloads.map(wrapped),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(PIECES | st.just("base64"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
@example("123")
@example('"123"')
@example('{"base64":"/w=="}')
@example({"base64": "aGVsbG8="})
@example({"base64": "MTIz"})
@example({"base64": "/w="})
@example({"base64": "/x=="})
def test_values_survive_the_round_trip(value: Any) -> None:
    assert same(json.loads(bytes(from_bytes(to_bytes(as_json(value))))), value)


@given(values)
def test_the_round_trip_does_not_depend_on_the_formatting(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1).replace("\n", "\t")):
        back = json.loads(bytes(from_bytes(to_bytes(Raw(text.encode())))))
        assert same(back, value)


# Conversions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"", ""),
        (b"Hello room!", "Hello room!"),
        ("Grüße aus 東京".encode(), "Grüße aus 東京"),
        (b'{"x":1,"y":[2,null]}', {"x": 1, "y": [2, None]}),
        (b"123", 123),
        (b"-1.5e3", -1500.0),
        (b"true", True),
        (b"null", None),
        (b" [1] ", [1]),
        (b"truely", "truely"),
        (b"1,2", "1,2"),
        (b"NaN", "NaN"),
        (b"{}{}", "{}{}"),
        (b'"abc"', '"abc"'),
        (b'"', '"'),
        (b'"123"', "123"),
        (b'"\\"123\\""', '"123"'),
        (b'"12\\u0033"', '"12\\u0033"'),
        (b"\x00\xff", {"base64": "AP8="}),
        (b'{"base64":"AP8="}', wrapped(b'{"base64":"AP8="}')),
        (b'{"base64":"aGVsbG8="}', {"base64": "aGVsbG8="}),
        (b'{"base64":"AP8"}', {"base64": "AP8"}),
        (b'{"base64":"AP8=","more":1}', {"base64": "AP8=", "more": 1}),
        (b'{"base64":1}', {"base64": 1}),
        ("{'\ufeff{}'}".encode(), "{'\ufeff{}'}"),
        (b"\xed\xa0\x80", wrapped(b"\xed\xa0\x80")),
    ],
)
def test_bytes_become_the_value_of_the_table(payload: bytes, value: Any) -> None:
    assert same(value_of(payload), value)
    assert to_bytes(from_bytes(payload)) == payload


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        ("Hello", b"Hello"),
        ("123", b'"123"'),
        ("a\nb", b"a\nb"),
        ("12\n", b"12\n"),
        ("\x00", b"\x00"),
        ({"a": "é"}, '{"a":"é"}'.encode()),
        ({"base64": "//79"}, b"\xff\xfe\xfd"),
        ([{"base64": "//79"}], b'[{"base64":"//79"}]'),
    ],
)
def test_values_become_the_bytes_of_the_table(value: Any, payload: bytes) -> None:
    assert to_bytes(as_json(value)) == payload


def test_a_base64_object_may_have_blanks_and_escaped_slashes() -> None:
    for text in (b'{"base64":"\\/w=="}', b' { "base64" : "/w==" } ', b'{"base64": "/w=="}'):
        assert to_bytes(Raw(text)) == b"\xff"


@pytest.mark.parametrize(
    "text", [b'{"b\\u0061se64":"/w=="}', b'{"base64":"\\u002fw=="}', b'{"base64":"/w==","base64":"/w=="}']
)
def test_a_base64_object_in_another_form_is_an_object(text: bytes) -> None:
    assert to_bytes(Raw(text)) == text
    assert bytes(from_bytes(text)) == text


def test_base64_in_base64_is_recognised_at_any_depth() -> None:
    binary, text = b"\xff", b"a"
    for _ in range(12):
        binary, text = wrapped_text(binary), wrapped_text(text)
        assert value_of(binary) == wrapped(binary)
        assert bytes(from_bytes(text)) == text
        assert to_bytes(from_bytes(binary)) == binary
        assert to_bytes(Raw(text)) == text


def test_json_keeps_its_text() -> None:
    for payload in (b' {"b" : 1.0,\t"a":"\\u00e9", "a":1E2} ', b"-0", b"[ ]", b"1.10"):
        assert bytes(from_bytes(payload)) == payload


def test_json_with_line_breaks_is_text() -> None:
    # To native clients each of its lines would be a message of its own.
    assert value_of(b'[\n{"type":"closing"}\n]') == '[\n{"type":"closing"}\n]'
    assert value_of(b"{}\n") == "{}\n"


@pytest.mark.parametrize(
    "payload",
    [
        nested(MAX_DEPTH + 1),
        b"[" * 100_000,
        nested(5000),
        b'{"a":' * 17 + b"1" + b"}" * 17,
        b"9223372036854775808",
        b"-9223372036854775809",
        b"[1,18446744073709551616]",
        b'{"a":9223372036854775808,"a":1}',
        b"[1" + b"0" * 5000 + b"]",
        b"1e999",
        b"[-1e400]",
        b'["\\ud800"]',
        b'["\\udc00\\ud800"]',
        b'["\t"]',
        b"01",
        b"[1,]",
        b"{}\x00",
        b'[{}, "[[[[[[[[[[[[[[[[[[" ',
    ],
)
def test_json_that_breaks_a_rule_of_the_native_protocol_is_text(payload: bytes) -> None:
    assert value_of(payload) == payload.decode()
    assert to_bytes(from_bytes(payload)) == payload


@pytest.mark.parametrize(
    "payload",
    [
        nested(MAX_DEPTH),
        b"[" + nested(MAX_DEPTH - 1) + b"," + nested(MAX_DEPTH - 1) + b"]",
        b"[9223372036854775807,-9223372036854775808]",
        b"[0.12345678901234567890123,1234567890123456789012e-5,1E0000000000000000000001]",
        b'["123456789012345678901234567890","\\"[[[[[[[[[[[[[[[[[[[[[[","\\ud83d\\ude00"]',
        b"[" + b"[]," * 5000 + b'"]"]',
        b"1e308",
    ],
)
def test_json_at_the_limits_of_the_rules_is_json(payload: bytes) -> None:
    assert bytes(from_bytes(payload)) == payload
    assert to_bytes(from_bytes(payload)) == payload
