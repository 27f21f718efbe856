"""Presence in memory, beyond the interface that all stores share."""

from __future__ import annotations

import pytest

from rooms.presence.base import GroupFull
from rooms.presence.memory import MemoryPresence
from rooms.protocol.types import User

ANN = User(name="ann", id="1", guest=False)


async def test_empty_groups_leave_nothing() -> None:
    presence = MemoryPresence()
    with pytest.raises(GroupFull):
        await presence.add("full", "a1", ANN, limit=0)
    await presence.add("g", "a1", ANN)
    await presence.start_grace("g", "a1", ANN)
    await presence.remove("g", "a1", ANN)
    await presence.members("h")
    await presence.counts(["i"])
    assert not presence._groups


async def test_users_of_one_name_are_distinct() -> None:
    presence = MemoryPresence()
    users = [
        User(name=name, id=f"id{number}", guest=True) for number, name in enumerate(["b", "a", "A", "b"])
    ]
    for user in users:
        await presence.add("g", user.id, user)
    for user in users:
        assert await presence.remove("g", user.id, user)
    assert not presence._groups
