"""Settings of a sound site, and what the checks report after changes."""

from __future__ import annotations

from typing import Any

from rooms.checks import asgi, channel_layers, settings

REDIS = "channels_redis.pubsub.RedisPubSubChannelLayer"
SHARED_PRESENCE = {"BACKEND": "rooms.presence.redis.RedisPresence", "OPTIONS": {"url": "redis://localhost"}}


def layer(backend: str, alias: str = "default", **config: Any) -> dict[str, Any]:
    return {alias: {"BACKEND": backend, "CONFIG": config}}


SOUND: dict[str, Any] = {
    "DEBUG": True,
    "ASGI_APPLICATION": "roomsite.asgi.application",
    "CHANNEL_LAYERS": layer(channel_layers.IN_MEMORY_LAYER, capacity=10_000),
    "ROOMS": {},
}


def run_all_checks() -> list[Any]:
    return [
        *asgi.check_asgi_application(),
        *settings.check_settings(),
        *channel_layers.check_channel_layer(),
    ]


def messages(django_settings: Any, changes: dict[str, Any]) -> list[Any]:
    """What all checks report about the sound site with these changes."""
    for name, value in {**SOUND, **changes}.items():
        setattr(django_settings, name, value)
    return run_all_checks()


def assert_reported(django_settings: Any, changes: dict[str, Any], ids: str, text: str) -> None:
    """Assert that exactly these ids are reported, with the text."""
    found = messages(django_settings, changes)
    assert {message.id for message in found} == set(ids.split())
    assert all(message.hint for message in found)
    assert any(text in f"{message.msg} {message.hint}" for message in found)
    for message in found:
        assert message.is_serious() is message.id.startswith("rooms.E")
