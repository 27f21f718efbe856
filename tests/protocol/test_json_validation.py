"""Validation of JSON agrees with ``strict_json.py`` and builds no values."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rooms.protocol import strict_json
from rooms.protocol.errors import ProtocolError
from rooms.protocol.json_validation import MAX_LENGTH_WITH_HUGE_NUMBERS, is_valid_json
from rooms.protocol.strict_json import MAX_DEPTH

MEGABYTE = 1024 * 1024


def follows_the_rules(text: str) -> bool:
    """Return the same for an object, by parsing every value."""
    try:
        return strict_json.parse(text)[1] is None
    except (ProtocolError, UnicodeEncodeError):
        return False


PIECES = st.sampled_from(
    [
        *('"', "\\", '\\"', "\\\\", "[", "]", "{", "}", ",", ":", "[]", "{}", '""', '"["', '"]"', '"{\\""'),
        *(
            "1",
            "-",
            ".",
            "e",
            "E+",
            "0",
            "9223372036854775807",
            "9223372036854775808",
            "e300",
            "e309",
            "1e308",
        ),
        *(
            "-9223372036854775808",
            "-9223372036854775809",
            "1" * 210,
            ".0",
            "true",
            "null",
            "\\u0041",
            " ",
            "é",
        ),
    ]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**65),
    st.integers(-3, 3).map(lambda more: 2**63 + more),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(PIECES, max_size=4).map("".join),
)
values = st.recursive(
    scalars, lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=3), each, max_size=3)
)


def deeper(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = [value, "]["]
    return value


@given(values, st.integers(0, 14))
@example([], 14)
def test_validation_of_a_value_agrees_with_strict_parsing(value: Any, levels: int) -> None:
    text = json.dumps({"a": deeper(value, levels)})
    assert is_valid_json(text.encode()) == follows_the_rules(text)


@given(st.lists(PIECES, max_size=12).map("".join))
@example("1e309")
@example("0.1e309")
@example("0e999")
@example("1" * 309 + ".5")
@example("1" * 400 + "e-200")
@example('{"a":"9223372036854775808"}')
@example("[9223372036854775808]")
@example("[1,-9223372036854775809]")
@example('["\\\\",9223372036854775808]')
def test_validation_of_any_text_agrees_with_strict_parsing(text: str) -> None:
    whole = f'{{"a":{text}}}'
    try:
        json.loads(whole)
    except (ValueError, RecursionError):
        assert not is_valid_json(whole.encode())
    else:
        assert is_valid_json(whole.encode()) == follows_the_rules(whole)


def test_the_rules_apply_to_long_texts() -> None:
    string = '"[{\\"' + "x" * MAX_LENGTH_WITH_HUGE_NUMBERS + '"'
    deep = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert is_valid_json(f"[{string},{deep},9223372036854775807,1e-400,1e99]".encode())
    assert not is_valid_json(f"[{string},[{deep}]]".encode())
    assert not is_valid_json(f"[{string},9223372036854775808]".encode())


def test_a_long_text_with_a_number_that_may_overflow_is_invalid() -> None:
    numbers = "1e300," * (MAX_LENGTH_WITH_HUGE_NUMBERS // 6)
    assert is_valid_json(f"[{numbers[:-1]}]".encode())
    assert not is_valid_json(f"[{numbers}1e300,1]".encode())
    assert is_valid_json(f'["{numbers}1e300"]'.encode())


@pytest.mark.parametrize(
    "repeated",
    ["[],", "[[[[[[[[[]]]]]]]]],", '"",', '"[",[],', "1234567890123456789,", "1e99,", '"\\\\",', '"\\"",'],
)
def test_validation_builds_no_values(repeated: str) -> None:
    # Values that are not built take no time either; those of this text would take many times its length.
    text = ("[" + repeated * (MEGABYTE // len(repeated)) + "1]").encode()
    tracemalloc.start()
    assert is_valid_json(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * MEGABYTE
