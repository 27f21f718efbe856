"""`settings.ROOMS`: defaults, overrides, unknown keys and the cache."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from rooms.conf import KEYS, Settings, get_settings, load_backend
from rooms.histories.memory import MemoryHistory
from rooms.presence.memory import MemoryPresence


@override_settings(ROOMS={})
def test_the_defaults_are_those_of_the_protocol_documentation() -> None:
    found = get_settings()
    assert (found.ping_interval, found.pong_timeout, found.login_timeout) == (25, 10, 10)
    assert (found.max_frame_bytes, found.max_rooms_per_connection) == (65536, 128)
    assert (found.request_rate, found.request_burst) == (20, 60)
    assert (found.send_queue_max_bytes, found.send_queue_max_frames, found.write_timeout) == (
        1048576,
        512,
        10,
    )
    assert (found.history_size, found.history_ttl, found.recovery_max_messages) == (1000, 604800, 300)
    assert (found.join_history_limit, found.leave_grace, found.guest_name_ttl) == (50, 15, 15)


@override_settings(ROOMS={})
def test_a_site_without_the_setting_has_the_defaults(settings: Any) -> None:
    del settings.ROOMS
    assert get_settings() == Settings()


def test_a_changed_setting_is_in_force_at_once_and_until_it_is_reset() -> None:
    before = get_settings()
    with override_settings(ROOMS={"PING_INTERVAL": 3, "LEAVE_GRACE": 0}):
        assert (get_settings().ping_interval, get_settings().leave_grace) == (3, 0)
    assert get_settings() == before


def test_the_settings_are_cached() -> None:
    assert get_settings() is get_settings()


@pytest.mark.parametrize(
    ("rooms", "error"),
    [
        ({"PNG_INTERVAL": 3}, 'Unknown setting ROOMS["PNG_INTERVAL"]; did you mean PING_INTERVAL?'),
        ({"PING_INTERVAL": 3, "ping_timeout": 4}, "; did you mean PONG_TIMEOUT?"),
        ({"COLOUR": "red"}, 'Unknown setting ROOMS["COLOUR"]; expected one of PROTOCOLS, PING_INTERVAL, '),
        ({7: 5}, "Unknown setting ROOMS[7]; expected one of PROTOCOLS, "),
        (["PING_INTERVAL"], "Expected a dict as the setting ROOMS, got ['PING_INTERVAL']."),
        (None, "Expected a dict as the setting ROOMS, got None."),
    ],
)
def test_an_unknown_key_raises_an_error_that_names_the_nearest(rooms: Any, error: str) -> None:
    # Every time, not only when it is read first.
    for _ in range(2):
        with override_settings(ROOMS=rooms), pytest.raises(ImproperlyConfigured, match=re.escape(error)):
            get_settings()


@override_settings(ROOMS={"HISTORIES": {"none": {"BACKEND": "rooms.histories.memory.MemoryHistory"}}})
def test_the_history_of_one_policy_may_be_replaced_alone() -> None:
    history = get_settings().histories
    assert set(history) == {"database", "memory", "none"}
    assert isinstance(load_backend(history["none"]), MemoryHistory)


def test_the_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_settings().ping_interval = 1  # type: ignore[misc]


def test_the_keys_are_the_fields_in_capitals() -> None:
    assert set(KEYS) == {each.name.upper() for each in dataclasses.fields(Settings)}


def test_a_backend_is_instantiated_with_its_options() -> None:
    assert isinstance(load_backend(Settings().presence), MemoryPresence)
    made = load_backend({"BACKEND": "decimal.Context", "OPTIONS": {"prec": 7}})
    assert made.prec == 7
