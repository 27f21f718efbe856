"""Registered extensions by name, and their settings."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterator
from decimal import Decimal

import pytest
from django import forms

from rooms.extensions import Extension, register, registry


class Quiz(Extension):
    class Settings(forms.Form):
        rounds = forms.IntegerField(initial=10, min_value=1)
        title = forms.CharField(required=False)
        strict = forms.BooleanField(required=False, initial=True)
        until = forms.DateField(initial=datetime.date(2030, 1, 2))
        factor = forms.DecimalField(initial=lambda: Decimal("1.5"))


NAME = "tests.extensions.test_registry.Quiz"
DEFAULTS = {
    "rounds": 10,
    "title": "",
    "strict": True,
    "until": datetime.date(2030, 1, 2),
    "factor": Decimal("1.5"),
}


@pytest.fixture
def registered() -> Iterator[None]:
    register(Quiz)
    yield
    registry.unregister(Quiz)


@pytest.mark.usefixtures("registered")
def test_an_extension_is_found_by_its_name() -> None:
    assert registry.find(NAME) is Quiz
    assert NAME in registry.names()
    assert registry.names() == sorted(registry.names())
    assert register(Quiz) is Quiz


def test_a_missing_extension_is_none() -> None:
    assert registry.find(NAME) is None


def test_the_module_extensions_is_not_part_of_the_name() -> None:
    assert registry.find("roomsite.WordFilter") is not None
    assert registry.find("roomsite.Quiz") is not None


@pytest.mark.usefixtures("registered")
def test_a_duplicate_name_is_an_error() -> None:
    double = type("Quiz", (Extension,), {"__module__": Quiz.__module__})
    with pytest.raises(ValueError, match="already"):
        register(double)


@pytest.mark.parametrize("wrong", [object, Quiz("a", None, {}), "Quiz"])
def test_only_extensions_can_be_registered(wrong: object) -> None:
    with pytest.raises(TypeError, match="subclass of Extension"):
        register(wrong)  # type: ignore[type-var]


def test_missing_settings_have_their_initial_values() -> None:
    assert registry.read_settings(Quiz, {}) == DEFAULTS


def test_stored_settings_are_read_and_unknown_ones_ignored() -> None:
    stored = {"rounds": 3, "strict": False, "until": "2031-05-06", "shoes": 42}
    assert registry.read_settings(Quiz, stored) == {
        **DEFAULTS,
        "rounds": 3,
        "strict": False,
        "until": datetime.date(2031, 5, 6),
    }


def test_invalid_stored_settings_are_logged_and_the_initial_ones_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        assert registry.read_settings(Quiz, {"rounds": 0, "title": "x"}) == DEFAULTS
    assert "Quiz" in caplog.text


def test_stored_settings_are_read_as_they_were_cleaned() -> None:
    form = Quiz.Settings({"rounds": 4, "title": "é", "strict": "", "until": "2031-05-06", "factor": "2.5"})
    assert form.is_valid()
    stored = registry.store_settings(form)
    assert stored["until"] == "2031-05-06"
    assert json.loads(json.dumps(stored)) == stored
    assert registry.read_settings(Quiz, stored) == form.cleaned_data


def test_settings_cannot_be_changed_by_a_handler() -> None:
    settings = registry.read_settings(Quiz, {})
    with pytest.raises(TypeError):
        settings["rounds"] = 1  # type: ignore[index]


def test_an_extension_without_settings_has_none() -> None:
    assert registry.read_settings(Extension, {"left": "over"}) == {}
