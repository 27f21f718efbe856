"""Example extensions: a word filter, a quiz and a relay.

They can be chosen for an application or a room in the admin.
"""

from __future__ import annotations

import random
import re
from typing import Any

from django import forms

from rooms import Extension, Rejected, message, register
from rooms.extensions import JoinEvent, MessageEvent, RoomContext


@register
class WordFilter(Extension):
    """Hides unwanted words in messages, or refuses the message."""

    class Settings(forms.Form):
        words = forms.CharField(
            initial="darn\nheck",
            required=False,
            widget=forms.Textarea(attrs={"rows": 4}),
            help_text="One per line, case-insensitive.",
        )
        refuse = forms.BooleanField(
            initial=False, required=False, help_text="Refuse such messages instead of hiding the words."
        )

    async def on_message(self, event: MessageEvent) -> None:
        words = [word for line in self.settings["words"].splitlines() if (word := line.strip())]
        if not words:
            return
        unwanted = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
        if self.settings["refuse"] and _mentions(event.data, unwanted):
            raise Rejected("Please mind your language.")
        event.data = _hidden(event.data, unwanted)


def _mentions(data: Any, unwanted: re.Pattern[str]) -> bool:
    """Return whether any string in the JSON data has an unwanted word."""
    return _hidden(data, unwanted) != data


def _hidden(data: Any, unwanted: re.Pattern[str]) -> Any:
    """Return the JSON data with stars instead of unwanted words in all strings."""
    if isinstance(data, str):
        return unwanted.sub(lambda found: "*" * len(found.group()), data)
    if isinstance(data, list):
        return [_hidden(each, unwanted) for each in data]
    if isinstance(data, dict):
        return {key: _hidden(each, unwanted) for key, each in data.items()}
    return data


QUESTIONS = [
    ("What is the capital of Australia?", "Canberra"),
    ("How many bits are in a byte?", "8"),
    ("Which planet is closest to the sun?", "Mercury"),
    ("Who wrote the play Hamlet?", "Shakespeare"),
    ("What is the chemical symbol of gold?", "Au"),
    ("Which language is Django written in?", "Python"),
]


@register
class Quiz(Extension):
    """Asks a number of questions; the first right answer to each scores.

    Members send ``start``, and ``answer`` with their guess. The quiz publishes ``quiz`` (the instructions),
    ``question``, ``score``, ``right`` and ``finished``; the first three are state, so that later members see
    them, too. All of them have a ``text``, which the chat page shows.
    """

    class Settings(forms.Form):
        rounds = forms.IntegerField(initial=3, min_value=1, max_value=len(QUESTIONS))
        points = forms.IntegerField(initial=1, min_value=1, help_text="For each right answer.")

    async def init(self) -> None:
        self.explained = False
        self.scores: dict[str, int] = {}
        self.questions: list[tuple[str, str]] = []

    async def on_join(self, event: JoinEvent) -> None:
        self.scores.setdefault(event.user.name, 0)
        if not self.explained:
            self.explained = True
            # A question from before a restart is no longer open.
            await event.room.publish("question", None, state=True)
            how = "Write /start to begin a quiz, and /answer with your guess."
            await event.room.publish("quiz", {"text": how}, state=True)

    @message("start")
    async def start(self, event: MessageEvent) -> None:
        if self.questions:
            raise Rejected("A quiz is under way.")
        self.scores = dict.fromkeys(self.scores, 0)
        self.questions = random.sample(QUESTIONS, self.settings["rounds"])
        event.reply({"rounds": len(self.questions), "text": "Here we go!"})
        await self.publish_score(event.room)
        await self.ask(event.room)

    @message("answer")
    async def answer(self, event: MessageEvent) -> None:
        if not self.questions:
            raise Rejected("No question is open. Write /start to begin a quiz.")
        _, answer = self.questions[0]
        # "/answer 8" on the chat page sends a number.
        right = str(event.data).strip().casefold() == answer.casefold()
        event.reply({"right": right, "text": "That is right!" if right else "No, that is not it."})
        if right:
            name = event.user.name
            self.scores[name] = self.scores.get(name, 0) + self.settings["points"]
            self.questions.pop(0)
            await event.room.publish("right", {"text": f"{name} is right: {answer}."})
            await self.publish_score(event.room)
            await self.ask(event.room)

    async def publish_score(self, room: RoomContext) -> None:
        standings = ", ".join(f"{name} {points}" for name, points in self.scores.items())
        await room.publish("score", {"text": f"Score: {standings}", "scores": self.scores}, state=True)

    async def ask(self, room: RoomContext) -> None:
        """Publish the next question, or end the quiz."""
        if self.questions:
            await room.publish("question", {"text": self.questions[0][0]}, state=True)
        else:
            most = max(self.scores.values())
            winners = " and ".join(name for name, points in self.scores.items() if points == most)
            await room.publish("question", None, state=True)
            await room.publish("finished", {"text": f"The quiz is over. Best: {winners}, with {most}."})


@register
class Relay(Extension):
    """Relays ``chat`` to all other members, like the example of roomer's server."""

    @message("chat")
    async def chat(self, event: MessageEvent) -> None:
        if event.room is not None:
            await event.send_to_room("chat", event.data)
