"""Rooms for the tests of histories. Django is imported once it is set up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from rooms.hub.config import RoomConfig


@pytest.fixture
def make_room(transactional_db: None) -> Callable[..., Awaitable[RoomConfig]]:
    """Creates a row with the given fields and returns its config."""
    from tests.histories.messages import create_room

    return sync_to_async(create_room)


@pytest.fixture
def room(transactional_db: None) -> RoomConfig:
    from tests.histories.messages import create_room

    return create_room()
