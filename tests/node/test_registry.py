"""What is alive in this process: loaded once, read again when told, let go when nobody is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar
from unittest import mock

import pytest

from rooms.concurrency.thread_pool import ThreadPool
from rooms.conf import get_settings
from rooms.extensions import Extension
from rooms.hub.group import Hub
from rooms.hub.write_scheduler import WriteScheduler
from rooms.models import Application, Ban, Room
from rooms.node import config
from rooms.node import registry as module
from rooms.node.registry import Registry
from rooms.protocol.errors import RoomNotFound

Install = Callable[[type[Extension]], str]


@pytest.fixture
def changes() -> mock.Mock:
    """What is done about what changed."""
    return mock.Mock()


@pytest.fixture
async def directory(chat: Application, changes: mock.Mock) -> AsyncIterator[Registry]:
    await Room.objects.acreate(application=chat, name="lobby")
    pool = ThreadPool(4, 32)
    hub = Hub(WriteScheduler(mock.Mock()))
    directory = Registry(get_settings(), hub, pool, pool, mock.Mock(), changes)
    yield directory
    directory.close()
    await asyncio.to_thread(pool.close)


class Counting(Extension):
    begun: ClassVar[list[Any]] = []

    async def init(self) -> None:
        self.begun.append(self.room and self.room.name)
        await asyncio.sleep(0)


async def loaded(directory: Registry, name: str = "lobby") -> Any:
    application = await directory.application("chat")
    assert application is not None
    return await directory.room(application, name)


async def test_what_is_asked_for_at_the_same_time_is_loaded_once(
    directory: Registry, chat: Application, installed: Install
) -> None:
    Counting.begun.clear()
    name = installed(Counting)
    await Application.objects.aupdate(extension=name)
    await Room.objects.aupdate(extension=name)
    with (
        mock.patch.object(config, "load_room", wraps=config.load_room) as load,
        mock.patch.object(config, "load_application", wraps=config.load_application) as load_application,
    ):
        rooms = await asyncio.gather(*(loaded(directory) for _ in range(10)))
    assert (load_application.call_count, load.call_count) == (1, 1)
    assert all(room is rooms[0] for room in rooms)
    assert Counting.begun == [None, "lobby"]
    assert rooms[0].runner.active
    assert repr(rooms[0].context) == "<RoomContext chat/lobby>"


async def test_what_is_not_there(directory: Registry) -> None:
    assert await directory.application("nowhere") is None
    application = await directory.application("chat")
    assert application is not None
    assert await directory.find_room(application, "nowhere") is None
    with pytest.raises(RoomNotFound):
        await directory.room(application, "nowhere")
    # It is looked for again.
    await Room.objects.acreate(application_id=application.config.id, name="nowhere")
    assert await directory.find_room(application, "nowhere") is not None


async def test_a_disabled_application_is_not_there(directory: Registry) -> None:
    await Application.objects.aupdate(enabled=False)
    assert await directory.application("chat") is None


async def test_what_is_known_is_found_without_waiting(directory: Registry) -> None:
    assert directory.cached_application("chat") is None
    assert directory.cached_room("chat", "lobby") is None
    room = await loaded(directory)
    assert directory.cached_application("chat") is room.application
    assert directory.cached_room("chat", "lobby") is room
    assert directory.room_by_id(room.config.id) is room
    assert directory.room_by_key(room.key) is room
    assert directory.rooms_of(room.application) == [room]
    assert directory.room_by_id(0) is None


async def test_a_row_read_again_changes_what_is_alive(directory: Registry) -> None:
    room = await loaded(directory)
    await Room.objects.aupdate(title="Lobby")
    record = await directory.reload_room(room)
    assert record is not None
    assert (record.title, room.config.title) == ("Lobby", "Lobby")
    assert await loaded(directory) is room


async def test_a_room_that_is_renamed_or_gone_is_left_to_the_notice(directory: Registry) -> None:
    room = await loaded(directory)
    await Room.objects.aupdate(name="hall")
    record = await directory.reload_room(room)
    assert record is not None
    assert (record.name, room.config.name) == ("hall", "lobby")
    await Room.objects.all().adelete()
    assert await directory.reload_room(room) is None


async def test_a_process_that_no_notice_reaches_reads_again(directory: Registry) -> None:
    room = await loaded(directory)
    await Application.objects.aupdate(title="Chat", leave_grace=3)
    await directory.refresh()
    assert room.application.config.title == "Chat"
    assert room.config.leave_grace == 3
    await Application.objects.all().adelete()
    await directory.refresh()
    assert (await directory.application("chat"), room.removed) == (None, True)


async def test_rooms_are_read_again_some_at_a_time(
    directory: Registry, chat: Application, changes: mock.Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many queries for some as for one; and nothing is done where nothing changed."""
    monkeypatch.setattr(module, "CHUNK", 3)
    rooms = [await loaded(directory)]
    for number in range(6):
        await Room.objects.acreate(application=chat, name=f"room {number}")
        rooms.append(await loaded(directory, f"room {number}"))
    ban = Ban(application=chat, room_id=rooms[5].config.id, guest="bob")
    await Ban.objects.abulk_create([ban])
    with mock.patch.object(config, "load_rooms", wraps=config.load_rooms) as load:
        await directory.refresh()
        assert [len(call.args[1]) for call in load.call_args_list] == [3, 3, 1]
        (notice,) = [call.args[0] for call in changes.on_change_missed.call_args_list]
        assert (notice.room, notice.name, notice.deleted) == (rooms[5].config.id, "room 4", False)
        await directory.reload_room(rooms[5])
        changes.reset_mock()
        await directory.refresh()
    assert changes.mock_calls == []


async def test_an_application_made_anew_under_its_name_is_another_one(directory: Registry) -> None:
    room = await loaded(directory)
    await Application.objects.all().adelete()
    await Application.objects.acreate(name="chat")
    live = await directory.load_application("chat")
    assert live is not None
    assert live is not room.application
    assert await directory.find_room(live, "lobby") is None


async def test_rooms_that_nobody_is_in_are_let_go(
    directory: Registry, chat: Application, installed: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("used", "extended"):
        extension = installed(Counting) if name == "extended" else ""
        await Room.objects.acreate(application=chat, name=name, extension=extension)
    lobby, used, extended = [await loaded(directory, name) for name in ("lobby", "used", "extended")]
    directory.sweep(lambda group: False)
    assert not lobby.removed
    monkeypatch.setattr(module, "IDLE_SECONDS", -1)
    directory.sweep(lambda group: group == used.group)
    assert (lobby.removed, used.removed, extended.removed) == (True, False, False)
    assert await loaded(directory) is not lobby
