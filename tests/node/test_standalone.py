"""The publisher of a process without sockets."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import channel_layers
from django.db import transaction
from django.db.backends.utils import CursorWrapper

import rooms
from rooms import api
from rooms.histories.database import DatabaseHistory
from rooms.layers.unix import LocalLayer
from rooms.models import Application, Ban, Message, Room
from rooms.node import config, current, standalone
from rooms.node.control_messages import UserDisconnected
from rooms.node.node import Node
from rooms.node.standalone import StandalonePublisher
from rooms.protocol.errors import (
    CloseCode,
    MessageTooLarge,
    PermissionDenied,
    ReservedEvent,
    RoomNotFound,
    RoomsError,
    UserNotFound,
)
from tests.node.clients import Client, MakeNode
from tests.servers import BASE_DIR, fresh_database, site_environment

pytestmark = pytest.mark.django_db(transaction=True)

# Only a process that hangs takes this many seconds.
PATIENCE = 60


@pytest.fixture
def lobby(chat: Application) -> Room:
    """A room whose history other processes share."""
    return Room.objects.create(application=chat, name="lobby", history="database")


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "rooms-publisher"]


def publish_one(application: str, room: str) -> Any:
    return rooms.publish(application, room, 1)


def stored() -> list[Any]:
    return [message.value for message in rooms.history("chat", "lobby")]


# One per process ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("transactional_db")
def test_the_first_call_creates_the_publisher(unreliable_layer: object) -> None:
    assert threads() == []
    with pytest.raises(RoomNotFound):
        rooms.history("chat", "lobby")
    assert len(threads()) == 1


@pytest.mark.usefixtures("lobby")
def test_later_calls_use_the_same_publisher() -> None:
    rooms.publish("chat", "lobby", 1)
    publisher = standalone.current()
    rooms.publish("chat", "lobby", 2)
    rooms.members("chat", "lobby")
    rooms.disconnect("unknown")
    assert standalone.current() is publisher
    assert len(threads()) == 1
    assert stored() == [1, 2]


@pytest.mark.usefixtures("lobby")
def test_a_closed_publisher_is_created_again() -> None:
    rooms.publish("chat", "lobby", 1)
    publisher = standalone.current()
    standalone.close()
    standalone.close()
    assert threads() == []
    rooms.publish("chat", "lobby", 2)
    assert standalone.current() is not publisher
    assert stored() == [1, 2]


@pytest.mark.usefixtures("lobby")
def test_changed_settings_create_another_publisher(settings: Any) -> None:
    rooms.publish("chat", "lobby", "12345678")
    publisher = standalone.current()
    settings.ROOMS = {"MAX_MESSAGE_BYTES": 9}
    with pytest.raises(MessageTooLarge):
        rooms.publish("chat", "lobby", "12345678")
    assert standalone.current() is not publisher
    assert len(threads()) == 1


@pytest.mark.usefixtures("lobby")
def test_a_publisher_that_cannot_start_leaves_no_thread(settings: Any) -> None:
    settings.ROOMS = {"PRESENCE": {"BACKEND": "missing.Presence"}}
    with pytest.raises(ImportError):
        rooms.publish("chat", "lobby", 1)
    assert threads() == []
    settings.ROOMS = {}
    rooms.publish("chat", "lobby", 2)
    assert stored() == [2]


@pytest.mark.usefixtures("lobby")
def test_threads_that_publish_at_once_share_the_publisher() -> None:
    together = threading.Barrier(4)

    def publish_several(thread: int) -> list[int | None]:
        together.wait(PATIENCE)
        messages = [rooms.publish("chat", "lobby", [thread, number]) for number in range(10)]
        return [message.seq for message in messages if message is not None]

    with ThreadPoolExecutor(4) as pool:
        sequences = list(pool.map(publish_several, range(4)))
    assert len(threads()) == 1
    assert all(seqs == sorted(seqs) for seqs in sequences)  # type: ignore[type-var]
    assert sorted(seq for seqs in sequences for seq in seqs) == list(range(1, 41))  # type: ignore[type-var]
    values = [message.value for message in rooms.history("chat", "lobby", 100)]
    for thread in range(4):
        assert [number for each, number in values if each == thread] == list(range(10))


# In this process only ----------------------------------------------------------------------------


@pytest.mark.usefixtures("lobby")
def test_a_message_of_the_server_is_stored() -> None:
    message = rooms.publish("chat", "lobby", {"a": [1, None]}, event="news")
    assert message is not None
    assert (message.room, message.seq, message.event, message.sender) == ("lobby", 1, "news", None)
    assert [each.value for each in rooms.history("chat", "lobby")] == [{"a": [1, None]}]
    volatile = rooms.publish("chat", "lobby", 2, volatile=True)
    assert volatile is not None
    assert volatile.seq is None
    assert stored() == [{"a": [1, None]}]


@pytest.mark.usefixtures("lobby")
def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UserNotFound):
        rooms.publish("chat", "lobby", 1, to="eve")
    with pytest.raises(ReservedEvent):
        rooms.publish("chat", "lobby", 1, event="joined")
    with pytest.raises(RoomsError):
        rooms.publish("chat", "lobby", 1, state=True, volatile=True)
    assert stored() == []


@pytest.mark.usefixtures("lobby")
def test_each_publish_costs_one_look_up_and_one_round_trip_of_the_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statements: list[str] = []
    writes: list[int] = []
    execute, write = CursorWrapper.execute, DatabaseHistory._write

    def recorded(self: Any, sql: str, *arguments: Any) -> Any:
        statements.append(sql)
        return execute(self, sql, *arguments)

    async def counted(self: Any, appends: Any, *arguments: Any) -> Any:
        writes.append(len(appends))
        return await write(self, appends, *arguments)

    rooms.publish("chat", "lobby", 0)
    monkeypatch.setattr(CursorWrapper, "execute", recorded)
    monkeypatch.setattr(DatabaseHistory, "_write", counted)
    standalone.close()
    for number in range(3):
        rooms.publish("chat", "lobby", number)
    assert writes == [1, 1, 1]
    for verb, table, count in (
        ("SELECT", "rooms_room", 3),
        ("SELECT", "rooms_sequence", 3),
        ("UPDATE", "rooms_sequence", 3),
        ("INSERT INTO", "rooms_message", 3),
    ):
        found = [each for each in statements if each.startswith(verb) and f'"{table}"' in each]
        assert len(found) == count, (verb, table)
    others = [each for each in statements if each.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))]
    assert len(others) == 12


# Rooms on demand ---------------------------------------------------------------------------------


def test_a_room_is_created_on_demand(chat: Application) -> None:
    message = rooms.publish("chat", "new", 1)
    assert message is not None
    room = Room.objects.get()
    assert (room.name, room.owner, room.listed, room.persistent) == ("new", None, True, True)
    chat.max_rooms = 1
    chat.save()
    with pytest.raises(PermissionDenied):
        rooms.publish("chat", "another", 1)
    rooms.publish("chat", "new", 2)


def test_a_missing_room_or_application_is_an_error(chat: Application, lobby: Room) -> None:
    chat.rooms_on_demand = False
    chat.save()
    Application.objects.create(name="disabled", enabled=False, rooms_on_demand=True)
    for application, room in (("chat", "nowhere"), ("nowhere", "lobby"), ("disabled", "lobby")):
        for call in (rooms.members, rooms.history, publish_one):
            with pytest.raises(RoomNotFound):
                call(application, room)
    assert Room.objects.count() == 1


@pytest.mark.usefixtures("chat")
def test_a_room_that_another_process_creates_at_the_same_time_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create_room = config.create_room

    def create_twice(*arguments: Any) -> None:
        create_room(*arguments)
        create_room(*arguments)

    monkeypatch.setattr(config, "create_room", create_twice)
    rooms.publish("chat", "new", 1)
    assert [message.value for message in rooms.history("chat", "new")] == [1]
    assert Room.objects.count() == 1


# In an event loop --------------------------------------------------------------------------------


async def test_a_synchronous_call_in_an_event_loop_is_an_error(lobby: Room) -> None:
    message = UserDisconnected(application=None, user="1", code=CloseCode.KICKED, message="Kicked.")
    # The row of the lobby was saved.
    standalone.close()
    for call in (rooms.members, rooms.history, publish_one):
        with pytest.raises(RoomsError, match="begins with a"):
            call("chat", "lobby")
    with pytest.raises(RoomsError, match="begins with a"):
        api._call(lambda target: target.send_control(message))
    # It is refused before anything is created.
    assert threads() == []


async def test_asynchronous_calls_run_together(lobby: Room) -> None:
    messages = await asyncio.gather(*(rooms.apublish("chat", "lobby", number) for number in range(20)))
    assert sorted(message.seq or 0 for message in messages) == list(range(1, 21))
    assert len(threads()) == 1
    assert len(await rooms.ahistory("chat", "lobby")) == 20


def test_asynchronous_calls_of_several_event_loops_share_the_publisher(lobby: Room) -> None:
    for number in range(3):
        asyncio.run(rooms.apublish("chat", "lobby", number))
    assert len(threads()) == 1
    assert stored() == [0, 1, 2]


# To another process ------------------------------------------------------------------------------


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a path that is short enough for Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="rooms-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def ann(lobby: Room, sockets: Path, settings: Any, make_node: MakeNode) -> AsyncIterator[Client]:
    """A member of the lobby, at a node that code outside does not find: a node of another process."""
    before = channel_layers.set("default", LocalLayer(folder=sockets))
    settings.ROOMS = {"PRESENCE": {"BACKEND": "rooms.presence.database.DatabasePresence"}}
    node = await make_node()
    yield await Client.named(node, "ann", "lobby")
    await sync_to_async(standalone.close)()
    channel_layers.set("default", before)


class TestAnotherProcess:
    async def test_its_members_receive_what_is_published(self, ann: Client) -> None:
        assert Node.current() is None
        message = await rooms.apublish("chat", "lobby", 1, event="news")
        await sync_to_async(rooms.publish)("chat", "lobby", 2, volatile=True)
        await rooms.apublish("chat", "lobby", 3, to="ann")
        await ann.until(lambda: ann.messages() == [1, 2, 3])
        received = ann.received("message")[0]
        assert (received["event"], received["seq"], received["from"]) == ("news", message.seq, None)

    async def test_its_members_are_found(self, ann: Client) -> None:
        assert [user.name for user in await rooms.amembers("chat", "lobby")] == ["ann"]
        with pytest.raises(UserNotFound):
            await rooms.apublish("chat", "lobby", 3, to="bob")

    async def test_the_commit_of_a_transaction_publishes(self, ann: Client) -> None:
        def publish() -> None:
            with transaction.atomic():
                rooms.publish("chat", "lobby", "rolled back")
                transaction.set_rollback(True)
            with transaction.atomic():
                rooms.publish("chat", "lobby", "committed")

        await sync_to_async(publish)()
        await ann.until(lambda: ann.messages())
        assert ann.messages() == ["committed"]

    async def test_disconnect_closes_its_connections(self, ann: Client) -> None:
        assert ann.connection.user is not None
        await rooms.adisconnect(ann.connection.user, code=CloseCode.LOGGED_OUT, message="Bye.")
        await ann.until(lambda: ann.closed)
        assert (ann.closed, ann.connection.close_reason) == (4510, "Bye.")

    async def test_a_saved_row_takes_effect(self, ann: Client, chat: Application) -> None:
        await Ban.objects.acreate(application=chat, guest="ann")
        await ann.until(lambda: ann.closed)
        assert ann.closed == CloseCode.BANNED

    async def test_publishing_is_no_presence(self, ann: Client) -> None:
        await rooms.apublish("chat", "lobby", 1)
        publisher = standalone.current()
        assert publisher._presence.node != ann.node.id
        await ann.node.context.presence.heartbeat()
        assert [user.name for user in await rooms.amembers("chat", "lobby")] == ["ann"]


# Processes of their own --------------------------------------------------------------------------

SETUP = """
import os, sys
from roomsite import settings
settings.INSTALLED_APPS.remove("daphne")
settings.INSTALLED_APPS += [name for name in [os.environ.get("TEST_APP")] if name]
if folder := os.environ.get("TEST_SOCKETS"):
    layer = {"BACKEND": "rooms.layers.unix.LocalLayer", "CONFIG": {"folder": folder}}
    settings.CHANNEL_LAYERS["default"] = layer
os.environ["DJANGO_SETTINGS_MODULE"] = "roomsite.settings"
import django
django.setup()
import rooms
from rooms.models import Application, Room
extension = os.environ.get("TEST_EXTENSION", "")
shop = Application.objects.create(name="shop", history="database", extension=extension)
orders = Room.objects.create(application=shop, name="orders", extension=extension)
def publish(data):
    print(data, rooms.publish("shop", "orders", data).seq, flush=True)
def wait(pid):
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.fixture
def run(sockets: Path) -> Callable[..., str]:
    """Runs Python code in a process with a site of its own; returns its output.

    It fails for a process that hangs, fails or writes an error.
    """
    database_url = fresh_database(bench=False)

    def run(code: str, **environment: str) -> str:
        done = subprocess.run(
            # Later versions of Python warn about a fork with threads.
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SETUP + code],
            capture_output=True,
            text=True,
            cwd=BASE_DIR,
            env=site_environment(database_url, None, {"TEST_SOCKETS": str(sockets), **environment}),
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


Run = Callable[..., str]


@pytest.fixture
async def received(sockets: Path) -> AsyncIterator[Callable[[int], Awaitable[list[str]]]]:
    """Waits for messages of the first room over Unix sockets; returns the first ones."""
    layer = LocalLayer(folder=sockets)
    channel = await layer.new_channel("test")
    found: list[str] = []

    async def receive(count: int) -> list[str]:
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                found.extend(map(bytes.decode, (await layer.receive(channel))["frames"]))
        return found

    for room in range(1, 100):
        await layer.group_add(f"room.{room}", channel)
    yield receive
    await layer.flush()


Received = Callable[[int], Awaitable[list[str]]]


async def test_a_process_ends_right_after_the_call_and_the_message_arrives(
    run: Run, received: Received
) -> None:
    assert await asyncio.to_thread(run, "publish('last')") == "last 1\n"
    (frame,) = await received(1)
    assert '"data":"last"' in frame


def test_a_process_that_calls_nothing_ends(run: Run) -> None:
    assert run("print('end')") == "end\n"


def test_a_process_ends_while_another_thread_publishes(run: Run) -> None:
    code = """
import threading
def publish_always():
    try:
        while True:
            rooms.publish("shop", "orders", 1)
            started.set()
    except BaseException:
        pass
started = threading.Event()
threading.Thread(target=publish_always, daemon=True).start()
started.wait()
print("end")
"""
    assert run(code) == "end\n"


def test_a_process_whose_channel_layer_is_down_ends(run: Run, sockets: Path) -> None:
    code = """
import logging
logging.getLogger("rooms").setLevel(logging.CRITICAL)
from channels.layers import get_channel_layer
async def fail(*_):
    raise ConnectionError
get_channel_layer().group_send = fail
publish("stored")
"""
    assert run(code) == "stored 1\n"


async def test_a_forked_child_publishes_and_its_parent_goes_on(run: Run, received: Received) -> None:
    """As workers that are forked from a process which has published, over Unix sockets."""
    code = """
publish("parent 1")
for child in ("child 1", "child 2"):
    pid = os.fork()
    if not pid:
        publish(child)
        publish(child)
        sys.exit()
    publish("parent 2")
    wait(pid)
publish("parent 3")
"""
    lines = (await asyncio.to_thread(run, code)).splitlines()
    numbers = sorted(int(line.rpartition(" ")[2]) for line in lines)
    assert numbers == list(range(1, 9))
    assert lines[0] == "parent 1 1"
    assert lines[-1] == "parent 3 8"
    frames = await received(8)
    assert sorted(frame.partition('"data":"')[2].partition('"')[0] for frame in frames) == sorted(
        ["parent 1", *["parent 2"] * 2, "parent 3", *["child 1"] * 2, *["child 2"] * 2]
    )


def test_a_child_that_is_forked_while_another_thread_publishes_does_not_hang(run: Run) -> None:
    code = """
import threading
from rooms.node import standalone
standalone._lock.acquire()
pid = os.fork()
if not pid:
    publish("child")
    os._exit(0)
standalone._lock.release()
wait(pid)
publish("parent")
"""
    assert run(code) == "child 1\nparent 2\n"


def test_a_child_of_a_process_that_serves_sockets_publishes_by_itself(run: Run) -> None:
    code = """
import asyncio, threading
from rooms.node.node import Node
loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever)
thread.start()
node = asyncio.run_coroutine_threadsafe(Node.get_or_start(), loop).result(30)
publish("node")
pid = os.fork()
if not pid:
    assert Node.current() is None
    publish("child")
    os._exit(0)
wait(pid)
assert Node.current() is node
publish("node")
asyncio.run_coroutine_threadsafe(node.stop(), loop).result(30)
loop.call_soon_threadsafe(loop.stop)
thread.join()
"""
    assert run(code) == "node 1\nchild 2\nnode 3\n"


ALL_CALLS = """
import asyncio
publish(1)
assert rooms.members("shop", "orders") == []
assert [message.value for message in rooms.history("shop", "orders")] == [1]
rooms.disconnect("1")
async def call_all():
    await rooms.apublish("shop", "orders", 2)
    await rooms.amembers("shop", "orders")
    await rooms.ahistory("shop", "orders")
    await rooms.adisconnect("1")
asyncio.run(call_all())
orders.title = "Orders"
orders.save()
orders.delete()
"""


def test_no_call_imports_the_node(run: Run) -> None:
    code = ALL_CALLS + "print('rooms.node.node' in sys.modules, 'rooms.node.join' in sys.modules)"
    assert run(code).splitlines()[1:] == ["False False"]


EXTENSION = """
import os
from rooms import Extension, register

@register
class Marker(Extension):
    async def init(self):
        with open(os.environ["TEST_MARKS"], "a") as marks:
            marks.write(f"{self.application} {self.room and self.room.name}\\n")

    async def on_message(self, event):
        with open(os.environ["TEST_MARKS"], "a") as marks:
            marks.write("message\\n")
"""
# The same rooms in a process that serves sockets.
IN_A_NODE = """
import asyncio
from rooms.node.node import Node
async def load():
    node = await Node.get_or_start()
    await node.services.history("shop", "orders", 1)
    await node.stop()
asyncio.run(load())
"""


@pytest.mark.parametrize(("code", "marks"), [(ALL_CALLS, []), (IN_A_NODE, ["shop None", "shop orders"])])
def test_an_extension_is_started_only_where_sockets_are_served(
    run: Run, tmp_path: Path, code: str, marks: list[str]
) -> None:
    (tmp_path / "marking").mkdir()
    (tmp_path / "marking" / "__init__.py").touch()
    (tmp_path / "marking" / "extensions.py").write_text(EXTENSION)
    file = tmp_path / "marks"
    file.touch()
    run(
        code,
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(BASE_DIR)]),
        TEST_APP="marking",
        TEST_EXTENSION="marking.Marker",
        TEST_MARKS=str(file),
    )
    assert file.read_text().splitlines() == marks


# Its interface -----------------------------------------------------------------------------------


async def test_the_publisher_and_the_services_of_a_node_have_the_same_methods(node: Node) -> None:
    for name in ("publish", "members", "history", "send_control"):
        assert callable(getattr(StandalonePublisher, name))
        assert callable(getattr(node.services, name))
    assert current.node is node


def test_a_message_without_history_is_not_stored(chat: Application) -> None:
    Room.objects.create(application=chat, name="none", history="none")
    message = rooms.publish("chat", "none", 1)
    assert message is not None
    assert message.seq is None
    assert not Message.objects.exists()
