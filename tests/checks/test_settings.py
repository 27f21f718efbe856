"""The checks of `settings.ROOMS`, and of the site as a whole."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from django.core.checks import run_checks

from rooms.checks.channel_layers import LOCAL_LAYER
from rooms.checks.settings import TYPES, check_settings
from rooms.conf import Settings
from tests.checks.sites import REDIS, SHARED_PRESENCE, assert_reported, layer, messages
from tests.servers import manage, site_environment

MEMORY_PRESENCE = {"BACKEND": "rooms.presence.memory.MemoryPresence"}
DATABASE = {"BACKEND": "rooms.histories.database.DatabaseHistory"}
MEMORY = {"BACKEND": "rooms.histories.memory.MemoryHistory"}


@pytest.mark.parametrize(
    "rooms",
    [
        {},
        {"PING_INTERVAL": 2.5, "THREAD_POOL_SIZE": 4, "HISTORIES": {"database": DATABASE, "memory": MEMORY}},
    ],
)
def test_sound_settings_are_not_reported(settings: Any, rooms: dict[str, Any]) -> None:
    assert messages(settings, {"ROOMS": rooms}) == []


@pytest.mark.parametrize(
    ("rooms", "ids", "text"),
    [
        ({"PING_INTERVALS": 5}, "rooms.E003", "did you mean PING_INTERVAL?"),
        ({"ping_interval": 5}, "rooms.E003", "did you mean PING_INTERVAL?"),
        ({7: 5}, "rooms.E003", "expected one of PROTOCOLS, PING_INTERVAL, "),
        ({"HISTORIES": {"databse": DATABASE}}, "rooms.E003", "did you mean database?"),
        (["PING_INTERVAL"], "rooms.E004", "Expected a dict"),
        (None, "rooms.E004", "Expected a dict"),
        *[
            ({"THREAD_POOL_SIZE": value}, "rooms.E004", "Expected an integer of at least 0 as ROOMS")
            for value in ("8", 8.0, True, None, -1)
        ],
        *[
            ({"PING_INTERVAL": value}, "rooms.E004", "Expected a number of at least 0 as ROOMS")
            for value in ("25", True, None, -0.5, float("nan"), float("inf"))
        ],
        ({"PRESENCE": "rooms.presence.memory.MemoryPresence"}, "rooms.E004", "dotted.path"),
        ({"PRESENCE": {"OPTIONS": {}}}, "rooms.E004", "dotted.path"),
        ({"PRESENCE": {**MEMORY_PRESENCE, "OPTIONS": []}}, "rooms.E004", "OPTIONS"),
        ({"PRESENCE": {**MEMORY_PRESENCE, "OPTION": {}}}, "rooms.E004", "OPTIONS"),
        *[
            ({"PROTOCOLS": value}, "rooms.E004", "a list of at least one of native, roomer")
            for value in ("native", ["native", "matrix"], [], [["native"]])
        ],
        ({"HISTORIES": DATABASE}, "rooms.E003 rooms.E004", "from history policies"),
        ({"HISTORIES": {"memory": "rooms.Memory"}}, "rooms.E004", "from history policies"),
        ({"PRESENCE": {"BACKEND": "rooms.presence.Lost"}}, "rooms.E005", "'rooms.presence.Lost'"),
        ({"PRESENCE": {"BACKEND": "lost"}}, "rooms.E005", "'lost'"),
        ({"HISTORIES": {"none": {"BACKEND": "lost.No"}}}, "rooms.E005", 'ROOMS["HISTORIES"]["none"]'),
    ],
)
def test_a_mistake_is_reported(settings: Any, rooms: Any, ids: str, text: str) -> None:
    assert_reported(settings, {"ROOMS": rooms}, ids, text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"CHANNEL_LAYERS": layer(LOCAL_LAYER)}, "DatabasePresence"),
        ({"CHANNEL_LAYERS": layer(REDIS)}, 'ROOMS["PRESENCE"]'),
        ({"CHANNEL_LAYERS": layer(REDIS), "ROOMS": {"PRESENCE": MEMORY_PRESENCE}}, "RedisPresence"),
        (
            {
                "CHANNEL_LAYERS": layer(REDIS),
                "ROOMS": {"PRESENCE": SHARED_PRESENCE, "HISTORIES": {"database": MEMORY}},
            },
            'ROOMS["HISTORIES"]["database"]',
        ),
    ],
)
def test_a_backend_in_memory_beside_a_shared_layer_is_reported(
    settings: Any, changes: dict[str, Any], text: str
) -> None:
    assert_reported(settings, changes, "rooms.W003", text)


def test_a_missing_setting_is_not_reported(settings: Any) -> None:
    messages(settings, {})
    del settings.ROOMS
    assert check_settings() == []


@pytest.mark.django_db
@pytest.mark.parametrize("databases", [None, ["default"]])
def test_django_runs_the_checks(settings: Any, databases: list[str] | None) -> None:
    """An unknown key is reported, and no check raises the error of reading it."""
    settings.ROOMS = {"PNG_INTERVAL": 3}
    settings.CHANNEL_LAYERS = {}
    settings.ASGI_APPLICATION = None
    found = {message.id for message in run_checks(databases=databases)}
    assert {"rooms.E001", "rooms.E002", "rooms.E003"} <= found


def test_every_type_of_setting_has_a_check() -> None:
    types = {str(field.type) for field in dataclasses.fields(Settings)}
    assert types == set(TYPES)


@pytest.mark.parametrize(
    ("database", "redis", "workers"),
    [
        ("sqlite:///unused.sqlite3", None, "1"),
        ("sqlite:///unused.sqlite3", None, "2"),
        ("sqlite:///unused.sqlite3", "redis://localhost:6379/0", "1"),
        ("postgres://ann@localhost/unused", None, "1"),
    ],
)
def test_the_example_site_has_no_issues(database: str, redis: str | None, workers: str) -> None:
    # None of these checks reads the database.
    environment = site_environment(database, redis, {"ROOMS_WORKERS": workers})
    assert "no issues" in manage(environment, "check")
