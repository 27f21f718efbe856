"""The system checks: silent about a sound site, and each red when its rule is broken."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.core.checks import run_checks

from rooms.checks import channel_layers as layer_checks
from rooms.checks.settings import KINDS, check_rooms
from rooms.conf import Settings
from tests.servers import manage, on_postgres, site_environment

REDIS = "channels_redis.pubsub.RedisPubSubChannelLayer"
SHARED_PRESENCE = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": "redis://localhost"}}
MEMORY_PRESENCE = {"BACKEND": "rooms.presence.memory.MemoryPresence"}
DATABASE = {"BACKEND": "rooms.histories.database.DatabaseHistory"}
MEMORY = {"BACKEND": "rooms.histories.memory.MemoryHistory"}


def layer(backend: str, alias: str = "default", **config: Any) -> dict[str, Any]:
    return {alias: {"BACKEND": backend, "CONFIG": config}}


def core(*hosts: Any) -> dict[str, Any]:
    return {
        "CHANNEL_LAYERS": layer(layer_checks.REDIS_CORE_LAYER, hosts=list(hosts), capacity=5000),
        "ROOMS": {"PRESENCE": SHARED_PRESENCE},
    }


django_only = get_asgi_application()
http_only = ProtocolTypeRouter({"http": django_only})


async def wrapped(scope: Any, receive: Any, send: Any) -> None:
    """An application that hides what is in it."""


SOUND: dict[str, Any] = {
    "DEBUG": True,
    "ASGI_APPLICATION": "roomsite.asgi.application",
    "CHANNEL_LAYERS": layer(layer_checks.IN_MEMORY_LAYER, capacity=10_000),
    "ROOMS": {},
}
PATIENT = {"address": "redis://localhost", "socket_timeout": 15}

SOUND_SITES: list[dict[str, Any]] = [
    {},
    {"ROOMS": {"PING_INTERVAL": 2.5, "THREADS": 4, "HISTORIES": {"database": DATABASE, "memory": MEMORY}}},
    {
        "ROOMS": {"CHANNEL_LAYER": "rooms"},
        "CHANNEL_LAYERS": layer(layer_checks.IN_MEMORY_LAYER, "rooms", capacity=1000),
    },
    {"DEBUG": False, "CHANNEL_LAYERS": layer(REDIS), "ROOMS": {"PRESENCE": SHARED_PRESENCE}},
    {"ASGI_APPLICATION": f"{__name__}.wrapped"},
    core(PATIENT),
    core({"address": "redis://localhost", "socket_timeout": None}),
    core("redis://localhost?socket_timeout=5.5"),
]

ON_POSTGRES = {
    "CHANNEL_LAYERS": layer(layer_checks.POSTGRES_LAYER),
    "ROOMS": {"PRESENCE": {"BACKEND": "rooms.presence.database.DatabasePresence"}},
}

# What is changed in the sound site, the ids of what is found, and words of message or hint.
BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"ASGI_APPLICATION": None}, "rooms.E001", "asgi.application"),
    ({"ASGI_APPLICATION": "roomsite.asgy.application"}, "rooms.E001", "No module named 'roomsite.asgy'"),
    ({"ASGI_APPLICATION": "roomsite.asgi.aplication"}, "rooms.E001", '"aplication"'),
    ({"ASGI_APPLICATION": f"{__name__}.http_only"}, "rooms.W005", "rooms.routing.websocket_application()"),
    ({"ASGI_APPLICATION": f"{__name__}.django_only"}, "rooms.W005", "ProtocolTypeRouter"),
    ({"CHANNEL_LAYERS": {}}, "rooms.E002", "no channel layer 'default'"),
    ({"ROOMS": {"CHANNEL_LAYER": "rooms"}}, "rooms.E002", "no channel layer 'rooms'"),
    ({"CHANNEL_LAYERS": {"default": {}}}, "rooms.E002", "no channel layer"),
    (
        {"CHANNEL_LAYERS": layer("missing.Layer"), "ROOMS": {"PRESENCE": SHARED_PRESENCE}},
        "rooms.E002",
        "'missing.Layer'",
    ),
    ({"ROOMS": {"PING_INTERVALS": 5}}, "rooms.E003", "Did you mean 'PING_INTERVAL'?"),
    ({"ROOMS": {"ping_interval": 5}}, "rooms.E003", "Did you mean 'PING_INTERVAL'?"),
    ({"ROOMS": {7: 5}}, "rooms.E003", "Lawful: PROTOCOLS, PING_INTERVAL, "),
    ({"ROOMS": {"HISTORIES": {"databse": DATABASE}}}, "rooms.E003", "Did you mean 'database'?"),
    ({"ROOMS": ["PING_INTERVAL"]}, "rooms.E004", "A dict"),
    ({"ROOMS": None}, "rooms.E004", "A dict"),
    *[
        ({"ROOMS": {"THREADS": value}}, "rooms.E004", "a whole number, zero or more")
        for value in ("8", 8.0, True, None, -1)
    ],
    *[
        ({"ROOMS": {"PING_INTERVAL": value}}, "rooms.E004", "a number, zero or more")
        for value in ("25", True, None, -0.5, float("nan"), float("inf"))
    ],
    ({"ROOMS": {"PRESENCE": "rooms.presence.memory.MemoryPresence"}}, "rooms.E004", "dotted.path"),
    ({"ROOMS": {"PRESENCE": {"OPTIONS": {}}}}, "rooms.E004", "dotted.path"),
    ({"ROOMS": {"PRESENCE": {**MEMORY_PRESENCE, "OPTIONS": []}}}, "rooms.E004", "OPTIONS"),
    ({"ROOMS": {"PRESENCE": {**MEMORY_PRESENCE, "OPTION": {}}}}, "rooms.E004", "OPTIONS"),
    *[
        ({"ROOMS": {"PROTOCOLS": value}}, "rooms.E004", "a list of one or more of native, roomer")
        for value in ("native", ["native", "matrix"], [], [["native"]])
    ],
    ({"ROOMS": {"HISTORIES": DATABASE}}, "rooms.E003 rooms.E004", "by history policy"),
    ({"ROOMS": {"HISTORIES": {"memory": "rooms.Memory"}}}, "rooms.E004", "by history policy"),
    ({"ROOMS": {"PRESENCE": {"BACKEND": "rooms.presence.Lost"}}}, "rooms.E005", "'rooms.presence.Lost'"),
    ({"ROOMS": {"PRESENCE": {"BACKEND": "lost"}}}, "rooms.E005", "'lost'"),
    ({"ROOMS": {"HISTORIES": {"none": {"BACKEND": "lost.No"}}}}, "rooms.E005", 'ROOMS["HISTORIES"]["none"]'),
    ({"DEBUG": False}, "rooms.W001", "in memory"),
    ({"CHANNEL_LAYERS": layer(layer_checks.IN_MEMORY_LAYER)}, "rooms.W002", "100 messages"),
    ({"CHANNEL_LAYERS": layer(layer_checks.IN_MEMORY_LAYER, capacity=999)}, "rooms.W002", "999 messages"),
    (
        {
            "CHANNEL_LAYERS": layer(layer_checks.REDIS_CORE_LAYER, hosts=[PATIENT]),
            "ROOMS": {"PRESENCE": SHARED_PRESENCE},
        },
        "rooms.W002",
        "100 messages",
    ),
    (
        {**ON_POSTGRES, "CHANNEL_LAYERS": layer(layer_checks.POSTGRES_LAYER, using="chat")},
        "rooms.E006",
        "'chat', which is not in DATABASES",
    ),
    ({"CHANNEL_LAYERS": layer(layer_checks.LOCAL_LAYER)}, "rooms.W003", "DatabasePresence"),
    ({"CHANNEL_LAYERS": layer(REDIS)}, "rooms.W003", 'ROOMS["PRESENCE"]'),
    ({"CHANNEL_LAYERS": layer(REDIS), "ROOMS": {"PRESENCE": MEMORY_PRESENCE}}, "rooms.W003", "RedisPresence"),
    (
        {
            "CHANNEL_LAYERS": layer(REDIS),
            "ROOMS": {"PRESENCE": SHARED_PRESENCE, "HISTORIES": {"database": MEMORY}},
        },
        "rooms.W003",
        'ROOMS["HISTORIES"]["database"]',
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
            (PATIENT, {"host": "localhost", "port": 6379}),
        )
    ],
]


def found(settings: Any, changes: dict[str, Any]) -> list[Any]:
    for name, value in {**SOUND, **changes}.items():
        setattr(settings, name, value)
    return check_rooms()


@pytest.mark.parametrize("changes", SOUND_SITES)
def test_a_sound_site(settings: Any, changes: dict[str, Any]) -> None:
    assert found(settings, changes) == []


@pytest.mark.parametrize(("changes", "ids", "words"), BROKEN)
def test_a_broken_rule(settings: Any, changes: dict[str, Any], ids: str, words: str) -> None:
    messages = found(settings, changes)
    assert {message.id for message in messages} == set(ids.split())
    assert all(message.hint for message in messages)
    assert any(words in f"{message.msg} {message.hint}" for message in messages)
    for message in messages:
        assert message.is_serious() is message.id.startswith("rooms.E")


def test_a_layer_on_postgresql_needs_it(settings: Any) -> None:
    messages = found(settings, ON_POSTGRES)
    if on_postgres():
        assert messages == []
    else:
        assert [message.id for message in messages] == ["rooms.E006"]
        assert "of sqlite" in messages[0].msg


def test_a_missing_setting_is_no_broken_one(settings: Any) -> None:
    found(settings, {})
    del settings.ROOMS
    assert check_rooms() == []
    del settings.ASGI_APPLICATION
    del settings.CHANNEL_LAYERS
    assert [message.id for message in check_rooms()] == ["rooms.E001", "rooms.E002"]


@pytest.mark.django_db
def test_django_carries_them_out(settings: Any) -> None:
    settings.ASGI_APPLICATION = None
    assert "rooms.E001" in {message.id for message in run_checks()}


def test_every_kind_of_setting_is_known() -> None:
    kinds = {str(field.type) for field in dataclasses.fields(Settings)}
    assert kinds == set(KINDS)


@pytest.mark.parametrize(
    ("database", "redis", "workers"),
    [
        ("sqlite:///unused.sqlite3", None, "1"),
        ("sqlite:///unused.sqlite3", None, "2"),
        ("sqlite:///unused.sqlite3", "redis://localhost:6379/0", "1"),
        ("postgres://ann@localhost/unused", None, "1"),
    ],
)
def test_the_site_as_shipped_is_sound(database: str, redis: str | None, workers: str) -> None:
    # No check looks into the database.
    environment = site_environment(database, redis, {"ROOMS_WORKERS": workers})
    assert "no issues" in manage(environment, "check")
