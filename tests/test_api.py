"""The server-side API, with and without a node and a transaction."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from channels.layers import channel_layers
from django.contrib.auth.models import User as Account
from django.db import transaction

import rooms
from rooms import api
from rooms.models import Application, Message, Room
from rooms.node.node import Node
from rooms.protocol.errors import CloseCode, RoomNotFound, RoomsError, UserNotFound
from rooms.protocol.types import User
from tests.node.clients import PATIENCE, Client
from tests.node.unreliable_layer import UnreliableLayer

T = TypeVar("T")

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def lobby() -> Iterator[Room]:
    before = channel_layers.set("default", UnreliableLayer())
    chat = Application.objects.create(name="chat")
    yield Room.objects.create(application=chat, name="lobby")
    channel_layers.set("default", before)


class Serving:
    """An event loop in a thread, with a node and a member of the lobby."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.node = self.run(Node.get_or_start())
        self.ann = self.run(Client.named(self.node, "ann", "lobby"))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def received(self) -> list[Any]:
        """The messages that ann received, after all background tasks."""

        async def messages() -> list[Any]:
            await self.node.context.tasks.drain()
            return self.ann.messages()

        return self.run(messages())

    def stop(self) -> None:
        self.run(self.node.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def serving() -> Iterator[Serving]:
    serving = Serving()
    yield serving
    serving.stop()


@pytest.fixture(params=["without a node", "with a node"])
def serving_or_not(request: pytest.FixtureRequest) -> Serving | None:
    """Whether this process serves sockets, in another thread."""
    return request.getfixturevalue("serving") if request.param == "with a node" else None


def stored() -> list[Any]:
    return [message.value for message in rooms.history("chat", "lobby")]


# Publishing --------------------------------------------------------------------------------------


def test_publish_stores_and_broadcasts(serving_or_not: Serving | None) -> None:
    message = rooms.publish("chat", "lobby", {"a": [1, None]}, event="news")
    assert message is not None
    assert (message.seq, message.event, message.sender, message.value) == (1, "news", None, {"a": [1, None]})
    assert stored() == [{"a": [1, None]}]
    if serving_or_not is not None:
        assert serving_or_not.received() == [{"a": [1, None]}]


def test_publish_raises_for_wrong_arguments(serving_or_not: Serving | None) -> None:
    with pytest.raises(RoomNotFound):
        rooms.publish("chat", "nowhere", 1)
    with pytest.raises(RoomNotFound):
        rooms.publish("nowhere", "lobby", 1)
    with pytest.raises(UserNotFound):
        rooms.publish("chat", "lobby", 1, to="eve")
    with pytest.raises(RoomsError):
        rooms.publish("chat", "lobby", 1, state=True, volatile=True)
    with pytest.raises(TypeError):
        rooms.publish("chat", "lobby", object())
    assert stored() == []


def test_publish_in_a_transaction_sends_after_the_commit(serving_or_not: Serving | None) -> None:
    with transaction.atomic():
        with transaction.atomic():
            assert rooms.publish("chat", "lobby", 1) is None
        assert rooms.publish("chat", "lobby", 2) is None
        assert not Message.objects.exists()
        if serving_or_not is not None:
            assert serving_or_not.received() == []
    assert stored() == [1, 2]
    if serving_or_not is not None:
        assert serving_or_not.received() == [1, 2]


def test_publish_sends_nothing_after_a_rollback(serving_or_not: Serving | None) -> None:
    with transaction.atomic():
        rooms.publish("chat", "lobby", 1)
        transaction.set_rollback(True)
    with transaction.atomic():
        rooms.publish("chat", "lobby", 2)
        with transaction.atomic():
            rooms.publish("chat", "lobby", 3)
            transaction.set_rollback(True)
    assert stored() == [2]
    if serving_or_not is not None:
        assert serving_or_not.received() == [2]


def test_an_error_after_the_commit_does_not_undo_it(caplog: pytest.LogCaptureFixture) -> None:
    with transaction.atomic():
        rooms.publish("chat", "nowhere", 1)
        rooms.publish("chat", "lobby", 2)
    assert stored() == [2]
    assert "nowhere" in caplog.text


def publish_at_once(*arguments: Any) -> None:
    """Broken: publishes at once, whatever transaction is open."""
    api._call(
        lambda target: target.publish(*arguments, event="message", to=None, state=False, volatile=False)
    )


def assert_rollback_is_respected(publish: Callable[..., Any], serving: Serving) -> None:
    with transaction.atomic():
        publish("chat", "memory", 1)
        transaction.set_rollback(True)
    assert serving.run(serving.node.services.history("chat", "memory", 9)) == []


def test_the_assertion_fails_for_publishing_at_once(serving: Serving, lobby: Room) -> None:
    Room.objects.create(application=lobby.application, name="memory", history="memory")
    assert_rollback_is_respected(rooms.publish, serving)
    with pytest.raises(AssertionError):
        assert_rollback_is_respected(publish_at_once, serving)


# Queries -----------------------------------------------------------------------------------------


def test_members_and_history_of_a_room(serving: Serving) -> None:
    for number in range(4):
        rooms.publish("chat", "lobby", number)
    assert [user.name for user in rooms.members("chat", "lobby")] == ["ann"]
    assert [message.value for message in rooms.history("chat", "lobby", 2)] == [2, 3]
    with pytest.raises(RoomNotFound):
        rooms.members("chat", "nowhere")
    with pytest.raises(RoomNotFound):
        rooms.history("chat", "nowhere")


# Disconnecting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["user", "id"])
def test_disconnect_closes_the_connections_of_a_user(serving: Serving, how: str) -> None:
    user = serving.ann.connection.user
    assert user is not None
    rooms.disconnect(User(name="x", id="other", guest=True))
    rooms.disconnect(user, "another application")
    assert serving.received() == []
    assert serving.ann.closed is None
    rooms.disconnect(user if how == "user" else user.id, "chat", code=CloseCode.LOGGED_OUT, message="Bye.")
    serving.received()
    assert (serving.ann.closed, serving.ann.connection.close_reason) == (4510, "Bye.")


def test_disconnect_in_a_transaction_closes_after_the_commit(serving: Serving) -> None:
    user = serving.ann.connection.user
    assert user is not None
    with transaction.atomic():
        rooms.disconnect(user)
        transaction.set_rollback(True)
    serving.received()
    assert serving.ann.closed is None
    with transaction.atomic():
        rooms.disconnect(user)
        serving.received()
        assert serving.ann.closed is None
    serving.received()
    assert serving.ann.closed == 4503


def test_disconnect_accepts_a_django_user(serving: Serving) -> None:
    account = Account.objects.create_user("bob")
    bob = Client(serving.node)
    serving.run(bob.connect(account))
    rooms.disconnect(account)
    serving.received()
    assert (bob.closed, serving.ann.closed) == (4503, None)


# From asynchronous code --------------------------------------------------------------------------


async def test_asynchronous_functions_without_a_node() -> None:
    message = await rooms.apublish("chat", "lobby", 1, event="news")
    assert message.seq == 1
    assert [each.value for each in await rooms.ahistory("chat", "lobby")] == [1]
    assert await rooms.amembers("chat", "lobby") == []
    await rooms.adisconnect("unknown")


async def test_asynchronous_functions_with_a_node() -> None:
    async with await Node.get_or_start() as node:
        ann = await Client.named(node, "ann", "lobby")
        await rooms.apublish("chat", "lobby", 1, to=["ann"])
        await rooms.apublish("chat", "lobby", 2)
        assert ann.messages() == [1, 2]
        assert [each.value for each in await rooms.ahistory("chat", "lobby")] == [2]
        assert [user.name for user in await rooms.amembers("chat", "lobby")] == ["ann"]
        assert ann.connection.user is not None
        await rooms.adisconnect(ann.connection.user)
        await node.context.tasks.drain()
        assert ann.closed == 4503


async def test_a_node_in_another_event_loop_is_called_there(serving: Serving) -> None:
    await rooms.apublish("chat", "lobby", 1)
    assert [user.name for user in await rooms.amembers("chat", "lobby")] == ["ann"]
    assert [each.value for each in await rooms.ahistory("chat", "lobby")] == [1]
    assert serving.received() == [1]
    assert serving.ann.connection.user is not None
    await rooms.adisconnect(serving.ann.connection.user)
    serving.received()
    assert serving.ann.closed == 4503


async def test_a_synchronous_call_in_the_event_loop_of_the_node_is_an_error() -> None:
    async with await Node.get_or_start():
        for ask in (rooms.members, rooms.history):
            with pytest.raises(RoomsError, match="begins with a"):
                ask("chat", "lobby")


# Names -------------------------------------------------------------------------------------------


def test_all_public_names_can_be_imported() -> None:
    for name in rooms.__all__:
        assert getattr(rooms, name).__name__ == name
    with pytest.raises(AttributeError):
        rooms.nonsense  # noqa: B018
