"""Layers of both kinds; two instances act as two processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dj_database_url
import pytest
from django.db import connections

from tests import services

if TYPE_CHECKING:
    from rooms.layers.base import TransportLayer

Make = Callable[..., "TransportLayer"]


@pytest.fixture
def postgres_alias() -> Iterator[str]:
    """Configure an empty PostgreSQL database for Django."""
    alias = "layer"
    url = services.postgres().create()
    databases: dict[str, Any] = connections.settings
    databases[alias] = connections.configure_settings(
        {"default": databases["default"], alias: {**dj_database_url.parse(url)}}
    )[alias]
    yield alias
    del databases[alias]
    if hasattr(connections._connections, alias):
        del connections[alias]


@pytest.fixture(params=["local", "postgres"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Creates layers of one kind."""
    made: list[TransportLayer] = []

    def make(**options: Any) -> TransportLayer:
        from rooms.layers.postgres import PostgresLayer
        from rooms.layers.unix import LocalLayer

        if request.param == "local":
            layer: TransportLayer = LocalLayer(folder=tmp_path / "meet", **options)
        else:
            layer = PostgresLayer(using=request.getfixturevalue("postgres_alias"), **options)
        made.append(layer)
        return layer

    if request.param == "postgres":
        request.getfixturevalue("postgres_alias")
    yield make
    for layer in made:
        await layer.flush()


@pytest.fixture
def pair(make: Make) -> tuple[TransportLayer, TransportLayer]:
    """The layers of two processes."""
    return make(), make()
