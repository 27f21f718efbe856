"""The class that extensions derive from: what it allows, and what it refuses when a class is made."""

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
    async def take(self, event: MessageEvent) -> None: ...

    @message("question")
    def ask(self, event: MessageEvent) -> None: ...


def test_the_hooks() -> None:
    assert {
        *("on_handshake", "on_connect", "on_receive", "on_disconnect", "on_login", "on_logout"),
        *("on_join", "on_before_leave", "on_leave", "on_message", "on_timeout", "on_error"),
    } == HOOKS


def test_a_class_knows_what_it_overrides_and_takes() -> None:
    assert Quiz.overridden == {"on_join"}
    assert Quiz.handlers == {"answer": "take", "question": "ask"}
    assert (Extension.overridden, Extension.handlers) == (frozenset(), {})


def test_what_is_inherited_counts() -> None:
    class Harder(Quiz):
        def on_timeout(self) -> None:  # type: ignore[override]
            """Plain functions are handlers, too."""

    assert Harder.overridden == {"on_join", "on_timeout"}
    assert Harder.handlers == Quiz.handlers


def test_a_handler_that_is_overridden_without_the_mark_takes_nothing() -> None:
    class Softer(Quiz):
        async def take(self, event: MessageEvent) -> None: ...

    assert Softer.handlers == {"question": "ask"}


def test_an_unlawful_hook_is_an_error_that_lists_the_lawful_ones() -> None:
    with pytest.raises(
        TypeError, match=r"Wrong\.on_joined is not a hook\. Lawful hooks: .*on_join.*on_timeout"
    ):

        class Wrong(Extension):
            async def on_joined(self, event: Any) -> None: ...


def test_one_message_has_one_taker() -> None:
    with pytest.raises(TypeError, match="handles 'answer' twice: in one and in two"):

        class Wrong(Extension):
            @message("answer")
            async def one(self, event: MessageEvent) -> None: ...

            @message("answer")
            async def two(self, event: MessageEvent) -> None: ...


@pytest.mark.parametrize("name", ["", "x" * 65, 7, None])
def test_a_taker_needs_a_lawful_name(name: Any) -> None:
    with pytest.raises(ValueError, match="1 to 64 characters"):
        message(name)


def test_the_mark_without_its_name_is_refused() -> None:
    def handler(self: Any, event: MessageEvent) -> None: ...

    with pytest.raises(ValueError, match="event name"):
        message(handler)  # type: ignore[arg-type]


def test_an_instance_knows_where_it_is() -> None:
    quiz = Quiz("chat", None, {"rounds": 3})
    assert (quiz.application, quiz.room, quiz.settings["rounds"], quiz.timeout) == ("chat", None, 3, None)


async def test_an_instance_reaches_connections_by_their_numbers() -> None:
    services = AsyncMock(connections=Mock(return_value=[1, 3]))
    quiz = Quiz("chat", None, {})
    quiz.attach(services, timeout_set=Mock())
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


async def test_an_instance_without_an_engine_says_so() -> None:
    with pytest.raises(RuntimeError, match="This Quiz is not running"):
        await Quiz("chat", None, {}).write(1, "hello")


async def test_only_an_applications_extension_that_runs_dials() -> None:
    services = AsyncMock()
    for_room = Quiz("chat", RoomContext(services, "chat", "lobby"), {})
    for_room.attach(services, timeout_set=Mock())
    with pytest.raises(RuntimeError, match="not a room's"):
        await for_room.open_connection("ws://service/")
    ended = Quiz("chat", None, {})
    ended.attach(services, timeout_set=Mock())
    ended.detach()
    with pytest.raises(RuntimeError, match="not running"):
        await ended.open_connection("ws://service/")
    services.open_connection.assert_not_called()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "60", True, 1j, timedelta(seconds=1)])
def test_a_timeout_is_a_number_above_0_or_none(timeout: Any) -> None:
    sentence = r"\.timeout is a number of seconds above 0, or None for never; got "
    quiz, told = Quiz("chat", None, {}), Mock()
    quiz.timeout = 3
    quiz.attach(AsyncMock(), timeout_set=told)
    with pytest.raises(ValueError, match="Quiz" + sentence):
        quiz.timeout = timeout
    assert (quiz.timeout, told.call_count) == (3, 0)
    with pytest.raises(ValueError, match="Wrong" + sentence):
        type("Wrong", (Quiz,), {"timeout": timeout})


def test_who_takes_frames_hears_after_a_minute_unless_it_says_otherwise() -> None:
    class Taking(Extension):
        async def on_receive(self, event: Any) -> None: ...

    class Never(Taking):
        timeout = None

    class Often(Extension):
        timeout = 0.5

    class Taken(Often):
        async def on_receive(self, event: Any) -> None: ...

    assert [kind("chat", None, {}).timeout for kind in (Taking, Never, Taken)] == [60, None, 0.5]


def test_setting_the_timeout_is_told_and_setting_anything_else_is_not() -> None:
    quiz, told = Quiz("chat", None, {}), Mock()
    quiz.timeout = 3
    quiz.attach(AsyncMock(), timeout_set=told)
    quiz.settings = {}
    assert told.call_count == 0
    quiz.timeout = 3
    assert (told.call_count, quiz.timeout) == (1, 3)
    quiz.detach()
    quiz.timeout = None
    assert told.call_count == 1
