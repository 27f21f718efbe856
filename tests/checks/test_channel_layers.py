"""The checks of the channel layer."""

from __future__ import annotations

from typing import Any

import pytest

from rooms.checks.channel_layers import (
    IN_MEMORY_LAYER,
    POSTGRES_LAYER,
    REDIS_CORE_LAYER,
    check_channel_layer,
)
from tests.checks.sites import REDIS, SHARED_PRESENCE, assert_reported, layer, messages
from tests.servers import on_postgres


def core(*hosts: Any) -> dict[str, Any]:
    return {
        "CHANNEL_LAYERS": layer(REDIS_CORE_LAYER, hosts=list(hosts), capacity=5000),
        "ROOMS": {"PRESENCE": SHARED_PRESENCE},
    }


SUFFICIENT = {"address": "redis://localhost", "socket_timeout": 15}

ON_POSTGRES = {
    "CHANNEL_LAYERS": layer(POSTGRES_LAYER),
    "ROOMS": {"PRESENCE": {"BACKEND": "rooms.presence.database.DatabasePresence"}},
}


@pytest.mark.parametrize(
    "changes",
    [
        {
            "ROOMS": {"CHANNEL_LAYER": "rooms"},
            "CHANNEL_LAYERS": layer(IN_MEMORY_LAYER, "rooms", capacity=1000),
        },
        {"DEBUG": False, "CHANNEL_LAYERS": layer(REDIS), "ROOMS": {"PRESENCE": SHARED_PRESENCE}},
        core(SUFFICIENT),
        core({"address": "redis://localhost", "socket_timeout": None}),
        core("redis://localhost?socket_timeout=5.5"),
    ],
)
def test_a_sound_layer_is_not_reported(settings: Any, changes: dict[str, Any]) -> None:
    assert messages(settings, changes) == []


@pytest.mark.parametrize(
    ("changes", "id", "text"),
    [
        ({"CHANNEL_LAYERS": {}}, "rooms.E002", "no channel layer 'default'"),
        ({"ROOMS": {"CHANNEL_LAYER": "rooms"}}, "rooms.E002", "no channel layer 'rooms'"),
        ({"CHANNEL_LAYERS": {"default": {}}}, "rooms.E002", "no channel layer"),
        (
            {"CHANNEL_LAYERS": layer("missing.Layer"), "ROOMS": {"PRESENCE": SHARED_PRESENCE}},
            "rooms.E002",
            "'missing.Layer'",
        ),
        ({"DEBUG": False}, "rooms.W001", "in memory"),
        ({"CHANNEL_LAYERS": layer(IN_MEMORY_LAYER)}, "rooms.W002", "100 messages"),
        ({"CHANNEL_LAYERS": layer(IN_MEMORY_LAYER, capacity=999)}, "rooms.W002", "999 messages"),
        (
            {
                "CHANNEL_LAYERS": layer(REDIS_CORE_LAYER, hosts=[SUFFICIENT]),
                "ROOMS": {"PRESENCE": SHARED_PRESENCE},
            },
            "rooms.W002",
            "100 messages",
        ),
        (
            {**ON_POSTGRES, "CHANNEL_LAYERS": layer(POSTGRES_LAYER, using="chat")},
            "rooms.E006",
            "'chat' is not in DATABASES",
        ),
        *[
            (core(*hosts), "rooms.W004", '"socket_timeout": 15')
            for hosts in (
                (),
                ("redis://localhost",),
                ("redis://localhost?socket_timeout=5",),
                ("redis://localhost?socket_timeout=soon",),
                (("localhost", 6379),),
                ({"address": "redis://localhost", "socket_timeout": 5},),
                (SUFFICIENT, {"host": "localhost", "port": 6379}),
            )
        ],
    ],
)
def test_an_unusable_layer_is_reported(settings: Any, changes: dict[str, Any], id: str, text: str) -> None:
    assert_reported(settings, changes, id, text)


def test_a_layer_on_postgresql_needs_postgresql(settings: Any) -> None:
    found = messages(settings, ON_POSTGRES)
    if on_postgres():
        assert found == []
    else:
        assert [message.id for message in found] == ["rooms.E006"]
        assert "'default' is sqlite" in found[0].msg


def test_a_missing_setting_is_reported(settings: Any) -> None:
    del settings.CHANNEL_LAYERS
    assert [message.id for message in check_channel_layer()] == ["rooms.E002"]
