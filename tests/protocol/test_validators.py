"""Valid names: native protocol, section 10."""

from __future__ import annotations

import unicodedata
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooms.protocol import validators
from rooms.protocol.errors import BadRequest


@pytest.mark.parametrize("name", ["ann", "Ann Lee", "Анна", "小林", "o'neil_7", "🦊", "e\u0301", "x" * 64])
def test_valid_user_names_are_normalised(name: str) -> None:
    assert validators.user_name(name) == unicodedata.normalize("NFKC", name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "x" * 65, " ann", "ann ", "ann  lee", "a\tb", "a\nb", "a\x00", "a\u200bb", "\ue000"),
        # NFKC: one character becomes eighteen.
        *("\u2028", "\ufdfa" * 4, "\u00a0ann", "\u3000"),
    ],
)
def test_invalid_user_names_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        validators.user_name(name)


def test_a_name_with_a_lone_surrogate_is_refused() -> None:
    for check in (validators.user_name, validators.room_name):
        with pytest.raises(BadRequest, match=r"U\+D800"):
            check("a\ud800")


def test_full_width_letters_are_normalised() -> None:
    assert validators.user_name("ａｎｎ") == "ann"


@pytest.mark.parametrize(("one", "other"), [("Ann", "aNN"), ("STRASSE", "straße"), ("ａｎｎ", "Ann")])
def test_spellings_of_one_name_have_the_same_key(one: str, other: str) -> None:
    assert validators.user_key(one) == validators.user_key(other)


def test_different_names_have_different_keys() -> None:
    assert validators.user_key("ann") != validators.user_key("anne")


@given(st.text())
def test_normalisation_is_idempotent(text: str) -> None:
    try:
        name = validators.user_name(text)
    except BadRequest:
        return
    assert validators.user_name(name) == name
    assert validators.user_key(name) == validators.user_key(text)


@pytest.mark.parametrize("name", ["lobby", "Lobby", "a  b", "a/b", "🦊", "ａｎｎ", "x" * 64])
def test_a_valid_room_name_is_unchanged(name: str) -> None:
    assert validators.room_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, " a", "a ", "\u3000a", "a\u00a0", "a\x00", "a\nb", "a\u200b", "\ue000", "\x85"]
)
def test_invalid_room_names_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        validators.room_name(name)


@given(st.text())
def test_a_room_name_is_never_changed(text: str) -> None:
    with suppress(BadRequest):
        assert validators.room_name(text) == text


def test_errors_show_invisible_characters_by_their_code_point() -> None:
    for check in (validators.user_name, validators.room_name):
        with pytest.raises(BadRequest) as raised:
            check("a\u202eb")
        assert raised.value.message.isprintable()
        assert "U+202E" in raised.value.message


@pytest.mark.parametrize("name", ["a", " a ", "\u200b", "\u00a0", "\ue000", "🦊" * 128])
def test_compatibility_protocols_allow_more_room_names(name: str) -> None:
    assert validators.is_room_name(name)


@pytest.mark.parametrize("name", ["", "🦊" * 129, "a\x00", "a\n", "\x1f", "\x7f", "\x9f", "\ud800"])
def test_compatibility_protocols_refuse_control_characters_and_long_names(name: str) -> None:
    assert not validators.is_room_name(name)


@given(st.text())
def test_every_native_room_name_is_valid_in_compatibility_protocols(text: str) -> None:
    with suppress(BadRequest):
        assert validators.is_room_name(validators.room_name(text))
