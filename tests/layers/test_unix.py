"""The layer between processes of one machine: its folder, and processes that die or do not read."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.core.exceptions import ImproperlyConfigured

from rooms.layers import unix
from tests.node.clients import PATIENCE

if TYPE_CHECKING:
    from rooms.layers.unix import LocalLayer

Pair = tuple["LocalLayer", "LocalLayer"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "meet"


@pytest.fixture
async def pair(folder: Path) -> AsyncIterator[Pair]:
    """The layers of two processes."""
    from rooms.layers.unix import LocalLayer

    layers = LocalLayer(folder=folder), LocalLayer(folder=folder)
    yield layers
    for layer in layers:
        await layer.flush()
    assert sockets(folder) == []


def sockets(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def listener(layer: LocalLayer) -> str:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    return channel


async def received(layer: LocalLayer, channel: str) -> str:
    async with asyncio.timeout(PATIENCE):
        text: str = (await layer.receive(channel))["text"]
        return text


async def test_a_process_that_only_sends_needs_no_socket(pair: Pair, folder: Path) -> None:
    here, there = pair
    await here.group_send("room", {"text": "no receiver"})
    channel = await listener(there)
    assert len(sockets(folder)) == 1
    await here.group_send("room", {"text": "a"})
    assert await received(there, channel) == "a"
    assert len(sockets(folder)) == 1


def test_the_folder_is_private(folder: Path) -> None:
    from rooms.layers.unix import LocalLayer

    LocalLayer(folder=folder)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o710, 0o701])
def test_a_folder_that_others_may_access_is_refused(folder: Path, mode: int) -> None:
    from rooms.layers.unix import LocalLayer

    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ImproperlyConfigured, match="Expected a folder of this user with the mode 700"):
        LocalLayer(folder=folder)


def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rooms.layers.unix import LocalLayer

    LocalLayer(folder=folder)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ImproperlyConfigured, match="which other users may access"):
        LocalLayer(folder=folder)


def test_a_link_to_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    from rooms.layers.unix import LocalLayer

    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ImproperlyConfigured, match="which other users may access"):
        LocalLayer(folder=folder)


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    from rooms.layers.unix import LocalLayer

    with pytest.raises(ImproperlyConfigured, match="at most 84 bytes"):
        LocalLayer(folder=tmp_path / ("x" * 90))


def test_the_default_folder_depends_on_the_site(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from rooms.layers.unix import default_folder

    found = {default_folder()}
    settings.SECRET_KEY = "another"
    found.add(default_folder())
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", "another")
    found.add(default_folder())
    settings.BASE_DIR = "/another"
    found.add(default_folder())
    assert len(found) == 4
    assert default_folder() in found


DIES = """
import asyncio, os, sys
from pathlib import Path
from django.conf import settings
settings.configure()
from rooms.layers.unix import LocalLayer

async def main():
    layer = LocalLayer(folder=Path(sys.argv[1]))
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_send("room", {"text": "from the other"})
    if len(sys.argv) > 2:
        os.kill(os.getpid(), 9)
    while (await layer.receive(channel))["text"] != "answer":
        pass

asyncio.run(main())
"""


def other_process(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run another process; return its exit code and its error output."""
    command = [sys.executable, "-c", DIES, str(folder), *arguments]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
    return ended.returncode, ended.stderr


async def test_a_process_that_ends_leaves_no_socket(pair: Pair, folder: Path) -> None:
    here, _ = pair
    channel = await listener(here)
    other = asyncio.create_task(asyncio.to_thread(other_process, folder))
    assert await received(here, channel) == "from the other"
    await here.group_send("room", {"text": "answer"})
    assert await other == (0, "")
    assert len(sockets(folder)) == 1


async def test_the_socket_of_a_killed_process_is_removed(pair: Pair, folder: Path) -> None:
    here, there = pair
    channel = await listener(there)
    assert await asyncio.to_thread(other_process, folder, "dies") == (-9, "")
    assert len(sockets(folder)) == 2
    await here.group_send("room", {"text": "a"})
    assert await received(there, channel) in ("from the other", "a")
    assert len(sockets(folder)) == 1


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def remove_sockets(folder: Path) -> None:
    for path in sockets(folder):
        path.unlink()


def listening(folder: Path) -> int:
    """Count the processes that listen there."""
    return len(list(folder.glob("[!.]*")))


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not done():  # noqa: ASYNC110 (a folder and a log have no events)
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("remove", [remove_folder, remove_sockets])
async def test_removed_sockets_and_folders_are_created_again(
    pair: Pair,
    folder: Path,
    remove: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(unix, "CHECK_SECONDS", 0.01)
    channels = [await listener(layer) for layer in pair]
    remove(folder)
    # No process listens now, which is no error.
    await pair[0].group_send("room", {"text": "lost"})
    assert await received(pair[0], channels[0]) == "lost"
    await until(lambda: folder.exists() and listening(folder) == 2)
    for layer in pair:
        await layer.group_send("room", {"text": "again"})
    for layer, channel in zip(pair, channels, strict=True):
        assert [await received(layer, channel), await received(layer, channel)] == ["again", "again"]
    assert caplog.text.count("was removed") == 2


async def test_a_folder_that_others_may_access_now_is_not_used(
    pair: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unix, "CHECK_SECONDS", 0.01)
    here, there = pair
    channel = await listener(there)
    await asyncio.to_thread(folder.chmod, 0o777)
    with pytest.raises(ImproperlyConfigured, match="which other users may access"):
        await here.group_send("room", {"text": "secret"})
    await until(lambda: "Cannot receive messages of other processes" in caplog.text)
    await asyncio.to_thread(folder.chmod, 0o700)
    await here.group_send("room", {"text": "a"})
    assert await received(there, channel) == "a"


async def test_a_socket_that_is_being_created_is_not_removed(pair: Pair, folder: Path) -> None:
    here, there = pair
    channel = await listener(there)
    with socket.socket(socket.AF_UNIX) as beginning:
        beginning.bind(str(folder / ".beginning"))
        await here.group_send("room", {"text": "a"})
        assert await received(there, channel) == "a"
        assert len(sockets(folder)) == 2
    (folder / ".beginning").unlink()


async def test_a_process_that_does_not_read_loses_messages_and_blocks_no_other(
    pair: Pair, folder: Path
) -> None:
    here, there = pair
    channel = await listener(there)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(folder / "deaf"))
        deaf.listen()
        async with asyncio.timeout(PATIENCE):
            for number in range(20):
                await here.group_send("room", {"text": str(number), "long": "x" * 1_000_000})
                assert await received(there, channel) == str(number)
        assert here.dropped["process"] > 10
        # The waiting messages do not delay the end.
        await here.flush()
    (folder / "deaf").unlink()


async def test_invalid_messages_are_ignored(
    pair: Pair, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = pair
    channel = await listener(there)
    (path,) = sockets(folder)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(struct.pack(">I", 8) + b"nonsense" + struct.pack(">I", 2**31))
    # A message of that length is not read.
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()
    await here.group_send("room", {"text": "a"})
    assert await received(there, channel) == "a"
    assert caplog.text.count("Ignored an invalid message") == 1


async def test_the_last_message_of_an_event_loop_is_sent(folder: Path) -> None:
    """Synchronous code sends from an event loop that ends at once."""
    from rooms.layers.unix import LocalLayer

    here, there = LocalLayer(folder=folder), LocalLayer(folder=folder)
    channel = await listener(there)
    text = "x" * 3_000_000
    await asyncio.to_thread(asyncio.run, here.group_send("room", {"text": text}))
    assert await received(there, channel) == text
    await there.flush()
