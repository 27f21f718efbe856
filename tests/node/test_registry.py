"""The applications and rooms of a process: loaded once, refreshed, and dropped when they are idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar
from unittest import mock

import pytest

from rooms.concurrency.thread_pool import ThreadPool
from rooms.conf import get_settings
from rooms.extensions import Extension
from rooms.hub.connection import Connection
from rooms.hub.group import Hub
from rooms.hub.write_scheduler import WriteScheduler
from rooms.models import Application, Ban, Room
from rooms.node import config
from rooms.node import registry as registry_module
from rooms.node.registry import Registry
from rooms.protocol.errors import RoomNotFound
from rooms.protocol.native import Native

Install = Callable[[type[Extension]], str]


@pytest.fixture
def listener() -> mock.Mock:
    """The listener of the registry."""
    return mock.Mock()


@pytest.fixture
async def registry(chat: Application, listener: mock.Mock) -> AsyncIterator[Registry]:
    await Room.objects.acreate(application=chat, name="lobby")
    pool = ThreadPool(4, 32)
    hub = Hub(WriteScheduler(mock.Mock()))
    registry = Registry(get_settings(), hub, pool, pool, mock.Mock(), listener)
    yield registry
    registry.close()
    await asyncio.to_thread(pool.close)


class Counting(Extension):
    started: ClassVar[list[Any]] = []

    async def init(self) -> None:
        self.started.append(self.room and self.room.name)
        await asyncio.sleep(0)


async def loaded(registry: Registry, name: str = "lobby") -> Any:
    application = await registry.application("chat")
    assert application is not None
    return await registry.room(application, name)


async def test_concurrent_requests_load_a_room_once(
    registry: Registry, chat: Application, install_extension: Install
) -> None:
    Counting.started.clear()
    name = install_extension(Counting)
    await Application.objects.aupdate(extension=name)
    await Room.objects.aupdate(extension=name)
    with (
        mock.patch.object(config, "load_room", wraps=config.load_room) as load,
        mock.patch.object(config, "load_application", wraps=config.load_application) as load_application,
    ):
        rooms = await asyncio.gather(*(loaded(registry) for _ in range(10)))
    assert (load_application.call_count, load.call_count) == (1, 1)
    assert all(room is rooms[0] for room in rooms)
    assert Counting.started == [None, "lobby"]
    assert rooms[0].runner.active
    assert repr(rooms[0].context) == "<RoomContext chat/lobby>"


async def test_a_missing_application_or_room_is_not_found(registry: Registry) -> None:
    assert await registry.application("nowhere") is None
    application = await registry.application("chat")
    assert application is not None
    assert await registry.find_room(application, "nowhere") is None
    with pytest.raises(RoomNotFound):
        await registry.room(application, "nowhere")
    # A room that was not found is looked up again.
    await Room.objects.acreate(application_id=application.config.id, name="nowhere")
    assert await registry.find_room(application, "nowhere") is not None


async def test_a_disabled_application_is_not_found(registry: Registry) -> None:
    await Application.objects.aupdate(enabled=False)
    assert await registry.application("chat") is None


async def test_loaded_rooms_are_found_without_waiting(registry: Registry) -> None:
    assert registry.cached_application("chat") is None
    assert registry.cached_room("chat", "lobby") is None
    room = await loaded(registry)
    by_name, by_id = registry.cached_room("chat", "lobby"), registry.room_by_id(room.config.id)
    assert (by_name, by_id, registry.room_by_key(room.key)) == (room, room, room)
    assert [registry.cached_application("chat")] == [room.application]
    assert registry.rooms_of(room.application) == [room]
    assert registry.room_by_id(0) is None


async def test_a_reload_updates_the_config_of_the_same_room(registry: Registry) -> None:
    room = await loaded(registry)
    await Room.objects.aupdate(title="Lobby")
    found = await registry.reload_room(room)
    assert found is not None
    assert (found.title, room.config.title) == ("Lobby", "Lobby")
    assert await loaded(registry) is room


async def test_a_reload_leaves_a_renamed_or_deleted_room_to_the_control_message(registry: Registry) -> None:
    room = await loaded(registry)
    await Room.objects.aupdate(name="hall")
    found = await registry.reload_room(room)
    assert found is not None
    assert (found.name, room.config.name) == ("hall", "lobby")
    await Room.objects.all().adelete()
    assert await registry.reload_room(room) is None


async def test_a_refresh_applies_changes_without_control_messages(registry: Registry) -> None:
    room = await loaded(registry)
    await Application.objects.aupdate(title="Chat", leave_grace=3)
    await registry.refresh()
    assert room.application.config.title == "Chat"
    assert room.config.leave_grace == 3
    await Application.objects.all().adelete()
    await registry.refresh()
    assert (await registry.application("chat"), room.removed) == (None, True)


async def test_a_refresh_reads_rooms_in_chunks(
    registry: Registry, chat: Application, listener: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk takes as many queries as a single room, and rooms that did not change cause no report."""
    monkeypatch.setattr(registry_module, "REFRESH_CHUNK", 3)
    rooms = [await loaded(registry)]
    for number in range(6):
        await Room.objects.acreate(application=chat, name=f"room {number}")
        rooms.append(await loaded(registry, f"room {number}"))
    ban = Ban(application=chat, room_id=rooms[5].config.id, guest="bob")
    await Ban.objects.abulk_create([ban])
    with mock.patch.object(config, "load_rooms", wraps=config.load_rooms) as load:
        await registry.refresh()
        assert [len(call.args[1]) for call in load.call_args_list] == [3, 3, 1]
        (missed,) = [call.args[0] for call in listener.on_change_missed.call_args_list]
        assert (missed.room, missed.name, missed.deleted) == (rooms[5].config.id, "room 4", False)
        await registry.reload_room(rooms[5])
        listener.reset_mock()
        await registry.refresh()
    assert listener.mock_calls == []


async def test_an_application_created_again_under_its_name_is_another_one(registry: Registry) -> None:
    room = await loaded(registry)
    await Application.objects.all().adelete()
    await Application.objects.acreate(name="chat")
    application = await registry.load_application("chat")
    assert application is not None
    assert application is not room.application
    assert await registry.find_room(application, "lobby") is None


async def test_a_sweep_drops_idle_rooms_without_members_or_extension(
    registry: Registry, chat: Application, install_extension: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("used", "joining", "extended"):
        extension = install_extension(Counting) if name == "extended" else ""
        await Room.objects.acreate(application=chat, name=name, extension=extension)
    names = ("lobby", "used", "joining", "extended")
    lobby, used, joining, extended = [await loaded(registry, name) for name in names]
    registry.sweep()
    assert not lobby.removed
    monkeypatch.setattr(registry_module, "IDLE_SECONDS", -1)
    used.add(Connection("c", Native()))
    joining.joining = 1
    registry.sweep()
    assert [room.removed for room in (lobby, used, joining, extended)] == [True, False, False, False]
    assert await loaded(registry) is not lobby
