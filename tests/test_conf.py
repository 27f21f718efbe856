"""`settings.ROOMS`: defaults, overrides, and a fresh reading when it changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from django.test import override_settings

from rooms.conf import KEYS, Settings, get_settings, load_backend
from rooms.histories.memory import MemoryHistory
from rooms.presence.memory import MemoryPresence


@override_settings(ROOMS={})
def test_the_defaults_are_those_of_the_protocol() -> None:
    found = get_settings()
    assert (found.ping_seconds, found.pong_seconds, found.login_seconds) == (25, 10, 10)
    assert (found.max_frame_bytes, found.max_rooms_per_connection) == (65536, 128)
    assert (found.request_rate, found.request_burst) == (20, 60)
    assert (found.outbox_bytes, found.outbox_frames, found.write_seconds) == (1048576, 512, 10)
    assert (found.history_count, found.history_seconds, found.recovery_limit) == (1000, 604800, 300)
    assert (found.join_limit, found.grace_seconds, found.guest_name_seconds) == (50, 15, 15)


@override_settings(ROOMS={})
def test_a_site_without_the_setting_has_the_defaults(settings: Any) -> None:
    del settings.ROOMS
    assert get_settings() == Settings()


def test_what_is_given_is_in_force_at_once_and_no_longer_than_given() -> None:
    before = get_settings()
    with override_settings(ROOMS={"PING_SECONDS": 3, "GRACE_SECONDS": 0}):
        assert (get_settings().ping_seconds, get_settings().grace_seconds) == (3, 0)
    assert get_settings() == before


def test_it_is_read_once() -> None:
    assert get_settings() is get_settings()


@override_settings(ROOMS={"PNG_SECONDS": 3, "ping_seconds": 4})
def test_unknown_keys_are_left_to_the_system_check() -> None:
    assert get_settings().ping_seconds == 25


@override_settings(ROOMS={"HISTORY": {"none": {"BACKEND": "rooms.histories.memory.MemoryHistory"}}})
def test_the_history_of_one_policy_may_be_replaced_alone() -> None:
    history = get_settings().history
    assert set(history) == {"database", "memory", "none"}
    assert isinstance(load_backend(history["none"]), MemoryHistory)


def test_the_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_settings().ping_seconds = 1  # type: ignore[misc]


def test_the_keys_are_the_fields_in_capitals() -> None:
    assert set(KEYS) == {each.name.upper() for each in dataclasses.fields(Settings)}


def test_a_backend_is_made_with_its_options() -> None:
    assert isinstance(load_backend(Settings().presence), MemoryPresence)
    made = load_backend({"BACKEND": "decimal.Context", "OPTIONS": {"prec": 7}})
    assert made.prec == 7
