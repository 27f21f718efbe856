"""The example extensions, alone and in a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import AsyncMock

import pytest
from channels.layers import channel_layers
from django import forms

from rooms import Rejected
from rooms.extensions import MessageEvent, RoomContext, registry
from rooms.models import Application, Room
from rooms.node.node import Node
from rooms.protocol.commands import Join
from rooms.protocol.types import User
from roomsite.extensions import QUESTIONS, Quiz, Relay, WordFilter
from tests.node.clients import Client
from tests.node.unreliable_layer import UnreliableLayer

ANSWERS = dict(QUESTIONS)


def filtered(data: Any, **settings: Any) -> Any:
    """The data after the filter."""
    extension = WordFilter("chat", None, registry.read_settings(WordFilter, settings))
    room = RoomContext(None, "chat", "lobby")  # type: ignore[arg-type]
    event = MessageEvent(room, User(name="ann", id="1", guest=False), "c", "message", data)
    asyncio.run(extension.on_message(event))
    return event.data


@pytest.mark.parametrize(
    ("data", "hidden"),
    [
        ("Darn it, heck!", "**** it, ****!"),
        ("darning a sock", "darning a sock"),
        ({"text": "oh HECK", "n": [1, None, "darn"]}, {"text": "oh ****", "n": [1, None, "****"]}),
        (7, 7),
        ("", ""),
    ],
)
def test_words_are_hidden_in_all_strings(data: Any, hidden: Any) -> None:
    assert filtered(data) == hidden


def test_the_hidden_words_are_a_setting() -> None:
    assert filtered("tea and heck", words=" tea \n\n") == "*** and heck"
    assert filtered("darn", words="") == "darn"
    assert filtered("a.b axb", words="a.b") == "*** axb"


def test_a_message_with_a_word_is_refused_by_setting() -> None:
    assert filtered("fine", refuse=True) == "fine"
    with pytest.raises(Rejected):
        filtered({"text": "darn"}, refuse=True)


def test_the_settings_are_validated() -> None:
    form = registry.settings_form(Quiz, {"rounds": len(QUESTIONS) + 1})
    assert isinstance(form, forms.Form)
    assert not form.is_valid()
    assert registry.read_settings(Quiz, {}) == {"rounds": 3, "points": 1}


async def test_chat_is_relayed_to_all_other_members() -> None:
    replies = AsyncMock()
    room = RoomContext(None, "chat", "lobby")  # type: ignore[arg-type]
    event = MessageEvent(room, User(name="ann", id="1", guest=False), "c", "chat", "Hello!", replies=replies)
    assert Relay.handlers == {"chat": "chat"}
    await Relay("chat", None, {}).chat(event)
    replies.send_to_room.assert_awaited_once_with("chat", "Hello!", None)


@pytest.fixture
async def node(transactional_db: None) -> AsyncIterator[Node]:
    before = channel_layers.set("default", UnreliableLayer())
    application = await Application.objects.acreate(name="chat", history="memory", request_rate=0)
    await Room.objects.acreate(
        application=application,
        name="quiz",
        extension="roomsite.Quiz",
        extension_settings={"rounds": 2, "points": 5},
    )
    node = await Node.get_or_start()
    yield node
    await node.stop()
    channel_layers.set("default", before)


def received(client: Client) -> list[tuple[str, Any]]:
    return [(frame["event"], frame["data"]) for frame in client.received("message")]


def score(**points: int) -> tuple[str, Any]:
    standings = ", ".join(f"{name} {count}" for name, count in points.items())
    return ("score", {"text": f"Score: {standings}", "scores": points})


async def test_a_quiz_from_start_to_end(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "quiz"), await Client.named(node, "bob", "quiz")
    with pytest.raises(Rejected, match="/start"):
        await ann.send("quiz", "Canberra", event="answer")
    assert (await ann.send("quiz", None, event="start"))["rounds"] == 2
    with pytest.raises(Rejected):
        await bob.send("quiz", None, event="start")
    assert received(bob)[0] == score(ann=0, bob=0)
    first = received(bob)[-1][1]["text"]
    assert (await bob.send("quiz", "no idea", event="answer"))["right"] is False
    assert (await bob.send("quiz", f"  {ANSWERS[first].upper()} ", event="answer"))["right"] is True
    assert received(ann)[-3:-1] == [
        ("right", {"text": f"bob is right: {ANSWERS[first]}."}),
        score(ann=0, bob=5),
    ]
    second = received(ann)[-1][1]["text"]
    assert second != first
    # A later member sees the state of the quiz.
    state = (await (await Client.named(node, "eve")).request(Join(room="quiz")))["state"]
    current = {each["event"]: each["data"] for each in state}
    assert "/start" in current.pop("quiz")["text"]
    assert current == dict([score(ann=0, bob=5), ("question", {"text": second})])
    await ann.send("quiz", ANSWERS[second], event="answer")
    assert received(bob)[-2:] == [
        ("question", None),
        ("finished", {"text": "The quiz is over. Best: ann and bob, with 5."}),
    ]
    assert (await ann.send("quiz", None, event="start"))["rounds"] == 2
    assert score(ann=0, bob=0, eve=0) in received(bob)


async def test_the_first_member_gets_the_instructions(node: Node) -> None:
    ann = await Client.named(node, "ann")
    joined = await ann.request(Join(room="quiz"))
    assert "/start" in joined["messages"][-1]["data"]["text"]
    await Client.named(node, "bob", "quiz")
    assert received(ann) == []


async def test_a_number_is_accepted_as_an_answer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roomsite.extensions.QUESTIONS", [("Six and two?", "8"), ("Three and five?", "8")])
    ann = await Client.named(node, "ann", "quiz")
    await ann.send("quiz", None, event="start")
    assert (await ann.send("quiz", 8, event="answer"))["right"] is True


async def test_guesses_are_not_published(node: Node) -> None:
    ann, bob = await Client.named(node, "ann", "quiz"), await Client.named(node, "bob", "quiz")
    await ann.send("quiz", None, event="start")
    before = len(received(bob))
    await ann.send("quiz", "wrong", event="answer")
    await ann.send("quiz", "just talking")
    assert received(bob)[before:] == [("message", "just talking")]
