"""Fixtures for the tests of the hub."""

from __future__ import annotations

import pytest

from tests.hub.codecs import Diffs, EachChange, Lines, Plain, Silent, Uppercase
from tests.hub.factories import WiredRoom


@pytest.fixture(autouse=True)
def reset_encodings() -> None:
    """Count the encodings of each test from 0."""
    for protocol in (Plain, Uppercase, Silent, Lines, EachChange, Diffs):
        protocol.encoded = 0


@pytest.fixture
def wired() -> WiredRoom:
    return WiredRoom()
