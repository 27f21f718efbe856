"""Hostile lines are parsed in linear time.

Nothing is measured: quadratic time would take minutes for these lengths.
"""

from __future__ import annotations

import json

import pytest

from rooms.protocol import native, strict_json
from rooms.protocol.commands import Command
from rooms.protocol.errors import ProtocolError
from rooms.protocol.events import Error
from rooms.protocol.native import Native

SIZES = [64 * 1024, 256 * 1024]

# The beginning of an object, and what is repeated after it up to the size.
PATTERNS = {
    "escaped quotes": ('{"a":"', r"\""),
    "escaped quotes after a bracket": ('{"a":["', r"\""),
    "backslashes": ('{"a":"', "\\"),
    "escaped backslashes and quotes": ('{"a":"', r"\\\""),
    "quotes": ('{"a":', '"'),
    "strings": ('{"a":', '"x"'),
    "escapes that are none": ('{"a":"', r"\x"),
    "arrays": ('{"a":', "["),
    "arrays with strings": ('{"a":', '["'),
    "arrays with escaped quotes": ('{"a":', r'["\"",'),
    "objects": ("", '{"a":'),
    "objects without a value": ("", '{"'),
    "both": ('{"a":', '[{"a":'),
    "closed arrays": ('{"a":', "[],"),
    "digits": ('{"a":', "9"),
    "exponents": ('{"a":', "1e999,"),
    "surrogates": ('{"a":"', r"\ud800"),
    "blanks": ('{"a":', " "),
}


def line_of(pattern: str, size: int, end: str = "") -> str:
    beginning, repeated = PATTERNS[pattern]
    return beginning + repeated * (size // len(repeated)) + end


def answers(line: str) -> list[Command | Error]:
    """Return the commands and errors of a line; none if it closes the connection."""
    try:
        return list(Native().decode(line))
    except ProtocolError:
        return []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_line_takes_quadratic_time(pattern: str, size: int) -> None:
    for end in ("", '"', '"}', "}", "\\"):
        line = line_of(pattern, size, end)
        assert all(isinstance(each, Error) for each in answers(line))
        native.is_plain(line)


@pytest.mark.parametrize("size", SIZES)
def test_a_long_line_of_escaped_quotes_is_parsed(size: int) -> None:
    text = '"' * (size // 2)
    line = json.dumps({"type": "login", "id": 1, "deep": text, "name": 1})
    (answer,) = answers(line)
    assert isinstance(answer, Error)
    assert answer.id == 1
    # Brackets in strings are not nesting.
    value, fault = strict_json.parse(json.dumps({"a": '["\\{' * (size // 5)}))
    assert fault is None
    assert len(value["a"]) >= size // 5 * 4


@pytest.mark.parametrize("size", SIZES)
def test_a_complete_line_that_is_too_deep_is_a_bad_request(size: int) -> None:
    depth = size // 2
    line = '{"type":"message","room":"a","id":7,"data":' + "[" * depth + "]" * depth + "}"
    (answer,) = answers(line)
    assert isinstance(answer, Error)
    assert (answer.id, answer.code) == (7, "bad_request")
    assert "deep" in answer.message


@pytest.mark.parametrize("place", ["", "a", " "])
@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('{"type":"message","id":1,"room":"a","data":1,"event":"%s"}', "event"),
        ('{"type":"message","id":1,"room":"a","data":1,"key":"%s"}', "key"),
        ('{"type":"message","id":1,"room":"%s","data":1}', "room"),
        ('{"type":"create","id":1,"room":"a","title":"%s"}', "title"),
        ('{"type":"rooms","id":1,"prefix":"%s"}', "prefix"),
    ],
)
def test_a_name_with_nul_is_a_bad_request(line: str, field: str, place: str) -> None:
    (answer,) = answers(line % rf"{place}\u0000{place}")
    assert isinstance(answer, Error)
    assert (answer.id, answer.code) == (1, "bad_request")
    (valid,) = answers(line % "valid")
    assert isinstance(valid, Command)
    assert getattr(valid, field) == "valid"


def test_data_may_hold_nul() -> None:
    (command,) = answers(r'{"type":"message","room":"a","data":"\u0000"}')
    assert isinstance(command, Command)
