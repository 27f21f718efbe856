"""The base class of extensions, and its errors for a wrong subclass."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from rooms.extensions import Extension, MessageEvent, RoomContext, message
from rooms.extensions.base import HOOKS


class Quiz(Extension):
    async def on_join(self, event: Any) -> None: ...

    @message("answer")
    async def answer(self, event: MessageEvent) -> None: ...

    @message("question")
    def ask(self, event: MessageEvent) -> None: ...


def test_the_hooks() -> None:
    assert {
        *("on_handshake", "on_connect", "on_receive", "on_disconnect", "on_login", "on_logout"),
        *("on_join", "on_before_leave", "on_leave", "on_message", "on_timeout", "on_error"),
    } == HOOKS


def test_a_class_lists_its_hooks_and_handlers() -> None:
    assert Quiz.overridden == {"on_join"}
    assert Quiz.handlers == {"answer": "answer", "question": "ask"}
    assert (Extension.overridden, Extension.handlers) == (frozenset(), {})


def test_inherited_hooks_and_handlers_are_listed() -> None:
    class Harder(Quiz):
        def on_timeout(self) -> None:  # type: ignore[override]
            """A plain function is a handler, too."""

    assert Harder.overridden == {"on_join", "on_timeout"}
    assert Harder.handlers == Quiz.handlers


def test_an_overridden_method_without_the_decorator_is_no_handler() -> None:
    class Softer(Quiz):
        async def answer(self, event: MessageEvent) -> None: ...

    assert Softer.handlers == {"question": "ask"}


def test_an_unknown_hook_is_an_error_that_lists_the_hooks() -> None:
    with pytest.raises(TypeError, match=r"Expected a hook of .*on_join.*on_timeout, got Wrong\.on_joined\."):

        class Wrong(Extension):
            async def on_joined(self, event: Any) -> None: ...


def test_a_message_has_one_handler() -> None:
    with pytest.raises(TypeError, match="handles 'answer' twice: in one and in two"):

        class Wrong(Extension):
            @message("answer")
            async def one(self, event: MessageEvent) -> None: ...

            @message("answer")
            async def two(self, event: MessageEvent) -> None: ...


@pytest.mark.parametrize("name", ["", "x" * 65, 7, None])
def test_a_handler_needs_an_event_name(name: Any) -> None:
    with pytest.raises(ValueError, match="1 to 64 characters"):
        message(name)


def test_the_decorator_without_a_name_is_an_error() -> None:
    def handler(self: Any, event: MessageEvent) -> None: ...

    with pytest.raises(ValueError, match="event name"):
        message(handler)  # type: ignore[arg-type]


def test_an_instance_has_its_application_room_and_settings() -> None:
    quiz = Quiz("chat", None, {"rounds": 3})
    assert (quiz.application, quiz.room, quiz.settings["rounds"], quiz.timeout) == ("chat", None, 3, None)


async def test_an_instance_calls_the_node_with_connection_numbers() -> None:
    services = AsyncMock(connections=Mock(return_value=[1, 3]))
    quiz = Quiz("chat", None, {})
    quiz.attach(services, on_timeout_set=Mock())
    assert quiz.connections == [1, 3]
    services.connections.assert_called_once_with("chat")
    await quiz.write(3, b"hello")
    services.write.assert_awaited_once_with("chat", 3, b"hello")
    await quiz.close(3)
    services.close.assert_awaited_once_with("chat", 3)
    assert (
        await quiz.open_connection("ws://service/", headers={"Key": "1"})
        is services.open_connection.return_value
    )
    services.open_connection.assert_awaited_once_with(
        quiz, "ws://service/", protocol="gowsev", headers={"Key": "1"}
    )


async def test_an_instance_without_a_node_raises_an_error() -> None:
    with pytest.raises(RuntimeError, match="This Quiz is not running"):
        await Quiz("chat", None, {}).write(1, "hello")


async def test_only_a_running_extension_of_an_application_opens_connections() -> None:
    services = AsyncMock()
    for_room = Quiz("chat", RoomContext(services, "chat", "lobby"), {})
    for_room.attach(services, on_timeout_set=Mock())
    with pytest.raises(RuntimeError, match="not that of a room"):
        await for_room.open_connection("ws://service/")
    ended = Quiz("chat", None, {})
    ended.attach(services, on_timeout_set=Mock())
    ended.detach()
    with pytest.raises(RuntimeError, match="not running"):
        await ended.open_connection("ws://service/")
    services.open_connection.assert_not_called()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "60", True, 1j, timedelta(seconds=1)])
def test_a_timeout_is_a_number_above_0_or_none(timeout: Any) -> None:
    error = r"Expected a number of seconds above 0, or None, as {}\.timeout, got "
    quiz, timeout_set = Quiz("chat", None, {}), Mock()
    quiz.timeout = 3
    quiz.attach(AsyncMock(), on_timeout_set=timeout_set)
    with pytest.raises(ValueError, match=error.format("Quiz")):
        quiz.timeout = timeout
    assert (quiz.timeout, timeout_set.call_count) == (3, 0)
    with pytest.raises(ValueError, match=error.format("Wrong")):
        type("Wrong", (Quiz,), {"timeout": timeout})


def test_the_default_timeout_with_on_receive_is_a_minute() -> None:
    class Receiving(Extension):
        async def on_receive(self, event: Any) -> None: ...

    class Never(Receiving):
        timeout = None

    class Often(Extension):
        timeout = 0.5

    class Both(Often):
        async def on_receive(self, event: Any) -> None: ...

    assert [kind("chat", None, {}).timeout for kind in (Receiving, Never, Both)] == [60, None, 0.5]


def test_setting_the_timeout_informs_the_runner() -> None:
    quiz, timeout_set = Quiz("chat", None, {}), Mock()
    quiz.timeout = 3
    quiz.attach(AsyncMock(), on_timeout_set=timeout_set)
    quiz.settings = {}
    assert timeout_set.call_count == 0
    quiz.timeout = 3
    assert (timeout_set.call_count, quiz.timeout) == (1, 3)
    quiz.detach()
    quiz.timeout = None
    assert timeout_set.call_count == 1
