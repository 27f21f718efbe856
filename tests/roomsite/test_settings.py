"""The settings from environment variables, and the errors for malformed values."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from rooms.conf import PROTOCOL_CLASSES
from tests.servers import SITE_VARIABLES, manage, site_environment

SETTINGS = Path(__file__).resolve().parent.parent.parent / "roomsite" / "settings.py"

PRODUCTION = {
    "DEBUG": "0",
    "SECRET_KEY": "5Vq0Wl-only-for-this-test-2mX9sKzR7uBfT1cYpH8nGdJ4aE6",
    "ALLOWED_HOSTS": "rooms.example.org, .example.net",
    "CSRF_TRUSTED_ORIGINS": "https://rooms.example.org",
    "DATABASE_URL": "postgres://ann:secret@db.example.org:5433/rooms",
    "REDIS_URL": "redis://cache.example.org:6379/2",
    "BEHIND_PROXY": "yes",
}


@pytest.fixture
def settings_for(monkeypatch: pytest.MonkeyPatch):
    """Loads the settings with these environment variables only."""

    def load(**environment: str) -> dict[str, Any]:
        for name in SITE_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(SETTINGS))

    return load


def test_the_defaults_without_variables(settings_for) -> None:
    found = settings_for()
    database = found["DATABASES"]["default"]
    assert found["DEBUG"] is True
    assert found["SECURE_SSL_REDIRECT"] is found["SESSION_COOKIE_SECURE"] is False
    assert database["ENGINE"] == "django.db.backends.sqlite3"
    assert database["NAME"] == str(SETTINGS.parent.parent / "db.sqlite3")
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert database["CONN_MAX_AGE"] == 60
    assert str(os.getpid()) in database["TEST"]["NAME"]
    assert found["CHANNEL_LAYERS"]["default"]["BACKEND"] == "channels.layers.InMemoryChannelLayer"
    assert found["CHANNEL_LAYERS"]["default"]["CONFIG"]["capacity"] == 10_000
    assert set(found["ROOMS"]) == {"PROTOCOLS"}
    assert set(found["ROOMS"]["PROTOCOLS"]) == set(PROTOCOL_CLASSES)


def test_an_empty_variable_is_the_same_as_an_absent_one(settings_for) -> None:
    assert settings_for(DEBUG="", REDIS_URL="", DATABASE_URL=" ")["DEBUG"] is True


def test_the_settings_of_a_production_site(settings_for) -> None:
    found = settings_for(**PRODUCTION)
    database = found["DATABASES"]["default"]
    layer = found["CHANNEL_LAYERS"]["default"]
    assert found["DEBUG"] is False
    assert found["ALLOWED_HOSTS"] == ["rooms.example.org", ".example.net"]
    assert (
        found["SECURE_SSL_REDIRECT"] is found["SESSION_COOKIE_SECURE"] is found["CSRF_COOKIE_SECURE"] is True
    )
    assert found["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("db.example.org", 5433, "rooms")
    assert layer["BACKEND"] == "channels_redis.pubsub.RedisPubSubChannelLayer"
    assert (
        layer["CONFIG"]["hosts"][0]["address"]
        == found["ROOMS"]["PRESENCE"]["OPTIONS"]["url"]
        == PRODUCTION["REDIS_URL"]
    )


MEMORY_LAYER = "channels.layers.InMemoryChannelLayer"
REDIS_LAYER = "channels_redis.pubsub.RedisPubSubChannelLayer"
POSTGRES_LAYER = "rooms.layers.postgres.PostgresLayer"
LOCAL_LAYER = "rooms.layers.unix.LocalLayer"
POSTGRES, REDIS = PRODUCTION["DATABASE_URL"], PRODUCTION["REDIS_URL"]


@pytest.mark.parametrize(
    ("environment", "layer", "presence", "histories"),
    [
        ({}, MEMORY_LAYER, None, None),
        ({"ROOMS_WORKERS": "1"}, MEMORY_LAYER, None, None),
        ({"ROOMS_WORKERS": "2"}, LOCAL_LAYER, "database.DatabasePresence", None),
        ({"DATABASE_URL": POSTGRES}, POSTGRES_LAYER, "database.DatabasePresence", None),
        (
            {"DATABASE_URL": POSTGRES, "ROOMS_WORKERS": "2"},
            POSTGRES_LAYER,
            "database.DatabasePresence",
            None,
        ),
        ({"REDIS_URL": REDIS, "ROOMS_WORKERS": "2"}, REDIS_LAYER, "redis.RedisPresence", {"redis"}),
        (
            {"DATABASE_URL": POSTGRES, "REDIS_URL": REDIS},
            REDIS_LAYER,
            "redis.RedisPresence",
            {"redis"},
        ),
    ],
)
def test_the_backends_that_processes_share(
    settings_for, environment: dict[str, str], layer: str, presence: str | None, histories: set[str] | None
) -> None:
    found = settings_for(**environment)
    assert found["CHANNEL_LAYERS"]["default"]["BACKEND"] == layer
    named = found["ROOMS"].get("PRESENCE", {}).get("BACKEND")
    assert named == (presence and f"rooms.presence.{presence}")
    assert found["ROOMS"].get("HISTORIES", {}).keys() == (histories or set())


async def test_redis_may_be_a_unix_socket(settings_for, tmp_path: Path) -> None:
    """The layer accepts the configuration for any kind of URL."""
    from channels_redis.pubsub import RedisPubSubChannelLayer
    from redis.exceptions import ConnectionError

    host = settings_for(REDIS_URL=f"unix://{tmp_path}/redis")["CHANNEL_LAYERS"]["default"]["CONFIG"]
    layer = RedisPubSubChannelLayer(**host)
    with pytest.raises(ConnectionError):
        await layer.group_send("group", {"type": "a"})
    await layer.flush()


def test_a_secret_key_alone_turns_debug_off(settings_for) -> None:
    assert settings_for(SECRET_KEY=PRODUCTION["SECRET_KEY"])["DEBUG"] is False


def test_https_may_be_left_to_a_proxy(settings_for) -> None:
    found = settings_for(**PRODUCTION, HTTPS="off")
    assert found["SECURE_SSL_REDIRECT"] is found["SESSION_COOKIE_SECURE"] is False
    assert found["SECURE_HSTS_SECONDS"] == 0


def test_the_duration_of_hsts(settings_for) -> None:
    assert settings_for(**PRODUCTION)["SECURE_HSTS_SECONDS"] == 31_536_000
    assert settings_for(**PRODUCTION, HSTS_SECONDS="3600")["SECURE_HSTS_SECONDS"] == 3600


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("DEBUG", "maybe", "'maybe'"),
        ("HTTPS", "2", "'2'"),
        ("HSTS_SECONDS", "-1", "'-1'"),
        ("HSTS_SECONDS", "a year", "'a year'"),
        ("ALLOWED_HOSTS", "https://example.org", "'https://example.org'"),
        ("CSRF_TRUSTED_ORIGINS", "example.org", "'example.org'"),
        ("CSRF_TRUSTED_ORIGINS", "https://example.org/chat", "'https://example.org/chat'"),
        ("DATABASE_URL", "db.sqlite3", "'db.sqlite3'"),
        ("DATABASE_URL", "sqlite://:memory:", ":memory:"),
        ("DATABASE_URL", "sqlite:///:memory:", ":memory:"),
        ("DATABASE_URL", "mysql://ann:hidden@db.example.org/rooms", "'mysql:…'"),
        ("DATABASE_URL", "postgres://ann:hidden@db.example.org", "'postgres:…'"),
        ("DATABASE_URL", "postgres://ann:hidden@db.example.org:port/rooms", "'postgres:…'"),
        ("DATABASE_URL", "postgres://ann:hidden@[db/rooms", "'postgres:…'"),
        ("ROOMS_WORKERS", "two", "'two'"),
        ("REDIS_URL", "localhost:6379", "'localhost:6379'"),
        ("REDIS_URL", "redis://:hidden@[cache/0", "'redis:…'"),
        ("REDIS_URL", "redis://:hidden@cache:port/0", "'redis:…'"),
        ("LOG_LEVEL", "loud", "'loud'"),
    ],
)
def test_a_malformed_value_is_reported_with_the_expected_ones(
    settings_for, name: str, value: str, shown: str
) -> None:
    with pytest.raises(ImproperlyConfigured) as raised:
        settings_for(**{name: value})
    message = str(raised.value)
    assert name in message
    assert shown in message
    assert message.startswith("Expected ")
    assert "hidden" not in message


def test_manage_py_shows_the_error_without_a_traceback() -> None:
    environment = site_environment("", more={"DEBUG": "maybe"})
    with pytest.raises(AssertionError, match="as the environment variable DEBUG, got 'maybe'") as raised:
        manage(environment, "check")
    assert "Traceback" not in str(raised.value)
    with pytest.raises(AssertionError, match="Traceback"):
        manage(environment, "check", "--traceback")


def test_production_needs_a_secret_key(settings_for) -> None:
    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY is missing"):
        settings_for(DEBUG="0")


def test_check_deploy_has_no_issues_with_production_values() -> None:
    environment = site_environment("", more=PRODUCTION)
    assert "no issues" in manage(environment, "check", "--deploy", "--fail-level", "WARNING")
