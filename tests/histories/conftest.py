"""Rooms for the histories' tests. Imports of Django wait until it is set up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rooms.catalogue import RoomRecord


@pytest.fixture
def make_room(transactional_db: None) -> Callable[..., RoomRecord]:
    """Makes a row, with these fields, and the record of it."""
    from tests.histories.said import made_room

    return made_room


@pytest.fixture
def room(make_room: Callable[..., RoomRecord]) -> RoomRecord:
    return make_room()
