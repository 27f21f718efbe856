"""The checks before a site is served."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError
from django.db.migrations.recorder import MigrationRecorder

from rooms.models import Application
from rooms.server import preflight
from rooms.server.addresses import Address, parse

pytestmark = pytest.mark.django_db

IN_MEMORY_LAYER = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
SHARED_LAYER = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}}
SHARED_PRESENCE = {
    "BACKEND": "rooms.presence.redis.RedisPresence",
    "OPTIONS": {"url": "redis://localhost"},
}


def test_database_without_migrations_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    preflight.check(1)
    monkeypatch.setattr(MigrationRecorder, "applied_migrations", lambda recorder: {})
    with pytest.raises(ValueError, match=r"^Expected a migrated database, .+ python manage\.py migrate\.$"):
        preflight.check(1)


def test_database_that_is_down_is_a_warning_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("connection refused\nin postgres://rooms:secret@nowhere/")

    monkeypatch.setattr(MigrationRecorder, "applied_migrations", fail)
    monkeypatch.setattr(preflight, "_unusable", fail)
    preflight.check(1)
    assert next(preflight.warnings([])) == (
        "The database does not answer: connection refused. It is tried again on each use."
    )


def test_address_that_accepts_no_client_is_a_warning(settings: Any) -> None:
    settings.CHANNEL_LAYERS, settings.ROOMS = SHARED_LAYER, {**settings.ROOMS, "PRESENCE": SHARED_PRESENCE}
    Application.objects.create(name="gowsev")
    Application.objects.create(name="chosen", protocols=["native"])
    addresses: list[Address] = [
        parse("a:1"),
        parse("a:2=gowsev"),
        parse("a:3=gowsev/nope"),
        parse("a:4=gowsev/chosen"),
    ]
    assert list(preflight.warnings(addresses)) == [
        "a:3 serves the application nope, which does not exist. Create it in the admin.",
        "a:4 serves the application chosen, which does not allow gowsev clients.",
    ]


@pytest.mark.parametrize(
    ("layer", "presence", "in_memory"),
    [
        (IN_MEMORY_LAYER, {}, "presence and the channel layer"),
        (IN_MEMORY_LAYER, {"PRESENCE": SHARED_PRESENCE}, "the channel layer"),
        (SHARED_LAYER, {}, "presence"),
    ],
)
def test_backends_in_memory_are_a_warning_and_an_error_for_several_processes(
    settings: Any, layer: Any, presence: Any, in_memory: str
) -> None:
    settings.CHANNEL_LAYERS, settings.ROOMS = layer, presence
    (line,) = preflight.warnings([])
    assert line.startswith(f"In memory: {in_memory}. This works for one process only: ")
    preflight.check(1)
    with pytest.raises(ValueError, match=f" with --workers 2, got {in_memory} in memory") as raised:
        preflight.check(2)
    assert str(raised.value).endswith('Configure CHANNEL_LAYERS and ROOMS["PRESENCE"], or use --workers 1.')


def test_shared_backends_need_no_warning(settings: Any) -> None:
    settings.CHANNEL_LAYERS, settings.ROOMS = SHARED_LAYER, {"PRESENCE": SHARED_PRESENCE}
    assert list(preflight.warnings([])) == []
    preflight.check(2)
