"""Lines that were made to do harm: they are read in time that grows with their length and no faster.

Nothing is measured: what takes the square of the length would take minutes here.
"""

from __future__ import annotations

import json

import pytest

from rooms.protocol import strict_json
from rooms.protocol.commands import Command
from rooms.protocol.errors import ProtocolError
from rooms.protocol.events import Error
from rooms.protocol.native import Native

SIZES = [64 * 1024, 256 * 1024]

# What is repeated after the beginning of an object, up to the size.
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


def made(pattern: str, size: int, end: str = "") -> str:
    beginning, repeated = PATTERNS[pattern]
    return beginning + repeated * (size // len(repeated)) + end


def answers(line: str) -> list[Command | Error]:
    """What comes of a line; nothing where it ends the connection."""
    try:
        return list(Native().decode(line))
    except ProtocolError:
        return []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_line_takes_the_square_of_its_length(pattern: str, size: int) -> None:
    for end in ("", '"', '"}', "}", "\\"):
        line = made(pattern, size, end)
        assert all(isinstance(each, Error) for each in answers(line))
        strict_json.is_plain(line)


@pytest.mark.parametrize("size", SIZES)
def test_a_long_line_of_escaped_quotes_that_ends_is_read(size: int) -> None:
    text = '"' * (size // 2)
    line = json.dumps({"type": "login", "id": 1, "deep": text, "name": 1})
    (answer,) = answers(line)
    assert isinstance(answer, Error)
    assert answer.id == 1
    # Brackets in strings are no nesting, however many.
    value, fault = strict_json.parse(json.dumps({"a": '["\\{' * (size // 5)}))
    assert fault is None
    assert len(value["a"]) >= size // 5 * 4


@pytest.mark.parametrize("size", SIZES)
def test_what_is_too_deep_but_complete_is_told_so(size: int) -> None:
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
def test_no_name_holds_nul(line: str, field: str, place: str) -> None:
    (answer,) = answers(line % rf"{place}\u0000{place}")
    assert isinstance(answer, Error)
    assert (answer.id, answer.code) == (1, "bad_request")
    (lawful,) = answers(line % "lawful")
    assert isinstance(lawful, Command)
    assert getattr(lawful, field) == "lawful"


def test_data_may_hold_nul() -> None:
    (command,) = answers(r'{"type":"message","room":"a","data":"\u0000"}')
    assert isinstance(command, Command)
