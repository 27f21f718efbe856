"""Rooms for the histories' tests. Imports of Django wait until it is set up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from rooms.hub.config import RoomConfig


@pytest.fixture
def make_room(transactional_db: None) -> Callable[..., Awaitable[RoomConfig]]:
    """Makes a row, with these fields, and the record of it."""
    from tests.histories.said import made_room

    return sync_to_async(made_room)


@pytest.fixture
def room(transactional_db: None) -> RoomConfig:
    from tests.histories.said import made_room

    return made_room()
