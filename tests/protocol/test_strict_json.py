"""Strict parsing finds the rule that a line breaks, with bounded recursion."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooms.protocol import native, strict_json
from rooms.protocol.errors import ProtocolError


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    """Return an object with ``depth`` levels of nesting."""
    return '{"a":' + opening * (depth - 1) + closing * (depth - 1) + "}"


def fault(line: str) -> str | None:
    _, found = strict_json.parse(line)
    return found.message if found else None


@pytest.mark.parametrize(
    "line",
    [
        *("{}", '{"a": null}', nested(16), '{"a": "[[[[[[[[[[[[[[[[[[[[["}', '{"a": "\\"]}"}'),
        *('{"a": 9223372036854775807}', '{"a": -9223372036854775808}', '{"a": 1e308}', '{"a": -1.5e-400}'),
        *('{"a": "\\ud83d\\ude00"}', '{"a": "\\u0000"}', '{"NaN": "Infinity"}', ' {"a" : [ 1 , 2 ] } '),
    ],
)
def test_a_valid_line_has_no_fault(line: str) -> None:
    value, found = strict_json.parse(line)
    assert found is None
    assert value == json.loads(line)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (nested(17), "deep"),
        ('{"a": {"b": ' + nested(15, '{"c":[', "]}") + "}}", "deep"),
        ('{"a": 9223372036854775808}', "2^63"),
        ('{"a": -9223372036854775809}', "2^63"),
        ('{"a": ' + "9" * 5000 + "}", "2^63"),
        ('{"a": 1e309}', "overflow"),
        ('{"a": -1E+999}', "overflow"),
        ('{"a": NaN}', "NaN"),
        ('{"a": [-Infinity]}', "-Infinity"),
        ('{"a": "\\ud800"}', "surrogates"),
        ('{"a": ["\\udc00\\ud800"]}', "surrogates"),
        ('{"\\udfff": 1}', "surrogates"),
    ],
)
def test_the_fault_names_the_broken_rule(line: str, word: str) -> None:
    message = fault(line)
    assert message is not None
    assert word in message
    assert len(message) < 100


@pytest.mark.parametrize(
    "line", ["", "1", "[]", "null", '"a"', "{", "}", '{"a"}', "{]", "{}}", '{"a": 01}', "{'a': 1}"]
)
def test_a_line_that_is_not_a_json_object_is_a_protocol_error(line: str) -> None:
    with pytest.raises(ProtocolError):
        strict_json.parse(line)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, nested(100_000), '{"a":' * 100_000, "]" * 100_000, "{[" * 50_000]
)
def test_no_nesting_exhausts_the_stack(line: str) -> None:
    with suppress(ProtocolError):
        assert fault(line) is not None


def test_values_below_the_allowed_depth_are_left_out_and_the_rest_is_parsed() -> None:
    value, found = strict_json.parse('{"id": 7, "deep": ' + "[" * 40 + "]" * 40 + ', "after": 8}')
    assert found is not None
    assert (value["id"], value["after"]) == (7, 8)


@pytest.mark.parametrize(
    "line", ['{"a": 1}', nested(16), '{"a": 999999999999999999}', '{"a": 1e99}', '{"a": "\\u00e9"}']
)
def test_harmless_lines_are_plain(line: str) -> None:
    assert native.is_plain(line)


def depth_of(value: Any) -> int:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if below is None else 1 + max(map(depth_of, below), default=0)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=30,
)
OBJECTS = st.dictionaries(st.text(), ANY_JSON, max_size=4)


def wrapped(value: dict[str, Any], times: int) -> dict[str, Any]:
    for _ in range(times):
        value = {"in": value}
    return value


@given(OBJECTS, st.integers(0, 20), st.booleans())
def test_a_plain_line_breaks_no_rule(value: dict[str, Any], times: int, ascii: bool) -> None:
    line = json.dumps(wrapped(value, times), ensure_ascii=ascii)
    message = fault(line)
    if depth_of(wrapped(value, times)) > strict_json.MAX_DEPTH:
        assert message is not None
    # msgspec refuses NaN and Infinity itself.
    if native.is_plain(line) and "NaN" not in line and "Infinity" not in line:
        assert message is None


@given(st.text(alphabet='{}[]",:\\u0dD8ef19aN+-. \n'))
def test_any_line_is_an_object_or_a_protocol_error(line: str) -> None:
    try:
        value, _ = strict_json.parse(line)
    except ProtocolError:
        return
    assert isinstance(value, dict)
