"""The oracle: whether the logs of a run keep the promises of ``docs/reliability.md``. Pure.

``check`` judges a run and returns what is wrong with it, in sentences; an empty list is a good run. It trusts
nothing that the server says about itself: a message is known by what its sender wrote into it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from tests.chaos.logs import Entered, Heard, Left, Logs, Mark, Sent, Spell, Stored

#: What a recovery hands over at most: who missed more is told to begin anew.
RECOVERY_MAX_MESSAGES = 300
#: What was said of somebody's coming or going may be so late, where the layer was frozen meanwhile.
LATE_SECONDS = 15.0
#: Who went while processes could not share who is there is told as gone by each that had them, after the
#: grace period and maybe as late.
OUTAGE_SECONDS = 15.0 + LATE_SECONDS

Kind = Literal["lost", "doubled", "order", "content", "foreign", "presence"]


class Violation(NamedTuple):
    """One thing that is wrong; ``count`` is how many messages or people it concerns."""

    kind: Kind
    text: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def check(logs: Logs) -> list[Violation]:
    """Everything that is wrong with a run."""
    kept = {(each.room, each.seq): each for each in logs.stored}
    found = [
        *_numbering(logs),
        *_origins(logs),
        *_acknowledgements(logs, kept),
        *_orders_of_senders(logs.stored),
    ]
    for client, log in logs.clients.items():
        found += _wire(client, log, kept)
        found += _tails(client, log, logs)
    return [*found, *_presence(logs)]


# The server's log -----------------------------------------------------------------------------------


def _numbering(logs: Logs) -> Iterator[Violation]:
    """Each room's numbers are 1, 2, 3 … to its counter, each once, and each message has one of them."""
    by_room: defaultdict[str, list[int]] = defaultdict(list)
    marks: defaultdict[tuple[str, Mark], list[int]] = defaultdict(list)
    for each in logs.stored:
        by_room[each.room].append(each.seq)
        marks[each.room, each.mark].append(each.seq)
    for room in sorted({*by_room, *logs.newest}):
        seqs = by_room[room]
        newest = logs.newest.get(room, max(seqs, default=0))
        if missing := set(range(1, newest + 1)) - set(seqs):
            text = f"the server's log of {room} has no {_ranges(missing)}, and its counter is at {newest}"
            yield Violation("lost", text, len(missing))
        if beyond := {seq for seq in seqs if not 1 <= seq <= newest}:
            text = f"the server's log of {room} has {_ranges(beyond)}, and its counter is at {newest}"
            yield Violation("order", text, len(beyond))
        if twice := {seq for seq, times in Counter(seqs).items() if times > 1}:
            yield Violation("doubled", f"the server's log of {room} has {_ranges(twice)} twice", len(twice))
    for (room, mark), places in marks.items():
        if len(places) > 1:
            text = f"{_name(mark)} is stored in {room} as {_ranges(places)}"
            yield Violation("doubled", text, len(places) - 1)


def _origins(logs: Logs) -> Iterator[Violation]:
    """Nothing is stored that was not sent, and nothing otherwise than it was sent."""
    sent: dict[tuple[str, Mark], Sent] = {(each.room, each.mark): each for each in logs.sent}
    for each in logs.stored:
        original = sent.get((each.room, each.mark))
        if original is None:
            yield Violation(
                "foreign", f"{each.room} {each.seq} is {_name(each.mark)}, which nobody sent there"
            )
        elif original.text != each.text:
            text = f"{each.room} {each.seq} is stored as {each.text!r} and was sent as {original.text!r}"
            yield Violation("content", text)


def _acknowledgements(logs: Logs, kept: dict[tuple[str, int], Stored]) -> Iterator[Violation]:
    """What was acknowledged is stored, under the number that the acknowledgement said."""
    for each in set(logs.acknowledged):
        row = kept.get((each.room, each.seq))
        if row is None or row.mark != each.mark:
            where = "nothing" if row is None else _name(row.mark)
            text = f"{_name(each.mark)} was acknowledged as {each.room} {each.seq}, where there is {where}"
            yield Violation("lost", text)


def _orders_of_senders(stored: Iterable[Stored]) -> Iterator[Violation]:
    """What one sender says in a room is stored in the order in which it was said."""
    last: dict[tuple[str, str], int] = {}
    for each in sorted(stored, key=lambda row: (row.room, row.seq)):
        before = last.get((each.room, each.mark.sender), -1)
        if each.mark.number < before:
            text = f"in {each.room} {_name(each.mark)} comes after {_name(Mark(each.mark.sender, before))}"
            yield Violation("order", text)
        last[each.room, each.mark.sender] = max(before, each.mark.number)


# What clients were told -----------------------------------------------------------------------------


def _wire(
    client: str, log: Iterable[Entered | Heard], kept: dict[tuple[str, int], Stored]
) -> Iterator[Violation]:
    """From its first position on a client hears each number once and in order, and what is stored there."""
    expected: dict[str, int] = {}
    epochs: dict[str, str] = {}
    for each in log:
        if isinstance(each, Entered):
            yield from _entrance(client, each, expected.get(each.room), epochs)
            resumed = each.since if each.recovered else None
            expected[each.room] = (each.position - each.told if resumed is None else resumed) + 1
            continue
        wanted = expected.get(each.room)
        if wanted is None:
            yield Violation("order", f"{client} heard {each.room} {each.seq} before it had entered")
        elif each.seq > wanted:
            text = f"{client} heard {each.room} {each.seq} where {wanted} had to come"
            yield Violation("lost", text, each.seq - wanted)
        elif each.seq < wanted:
            yield Violation("doubled", f"{client} heard {each.room} {each.seq} where {wanted} had to come")
        expected[each.room] = max(wanted or 0, each.seq + 1)
        row = kept.get((each.room, each.seq))
        if row is None:
            text = f"{client} heard {each.room} {each.seq}, {_name(each.mark)}, which is not stored"
            yield Violation("foreign", text)
        elif (row.mark, row.text) != (each.mark, each.text):
            text = f"{client} heard {each.room} {each.seq} as {_name(each.mark)}, stored is {_name(row.mark)}"
            yield Violation("content", text)


def _entrance(
    client: str, entered: Entered, expected: int | None, epochs: dict[str, str]
) -> Iterator[Violation]:
    """Who comes back gets exactly what was missed, or is told that it was too much."""
    room = entered.room
    if (epoch := epochs.setdefault(room, entered.epoch)) != entered.epoch:
        yield Violation("lost", f"{client} found {room} begun anew: {entered.epoch} instead of {epoch}")
        epochs[room] = entered.epoch
    if entered.since is None:
        return
    missed = entered.position - entered.since
    if expected is not None and entered.since + 1 > expected:
        text = f"{client} came back to {room} after {entered.since} and had only heard up to {expected - 1}"
        yield Violation("order", text)
    if entered.recovered and entered.told != missed:
        text = f"{client} had missed {missed} in {room} and was given {entered.told} of them"
        yield Violation("lost", text, abs(missed - entered.told))
    if not entered.recovered and 0 <= missed <= RECOVERY_MAX_MESSAGES:
        text = f"{client} had missed only {missed} in {room} and was told to begin anew"
        yield Violation("lost", text, missed)


def _tails(client: str, log: Iterable[Entered | Heard], logs: Logs) -> Iterator[Violation]:
    """Who stayed had heard everything by the end, and in time."""
    heard: dict[str, int] = {}
    for each in log:
        at = each.position - each.told if isinstance(each, Entered) else each.seq
        heard[each.room] = max(heard.get(each.room, 0), at)
    for room, in_time in sorted(logs.in_time.get(client, {}).items()):
        newest, last = logs.newest.get(room, 0), min(in_time, heard.get(room, 0))
        if last < newest:
            text = f"{client} was in {room} to the end and had heard nothing after {last} of {newest}"
            yield Violation("lost", text, newest - last)


# Presence -------------------------------------------------------------------------------------------


def _presence(logs: Logs) -> Iterator[Violation]:
    """At the end the lists are right; each departure was told once, and only of people who had gone."""
    there: defaultdict[str, set[str]] = defaultdict(set)
    spells: defaultdict[tuple[str, str], list[Spell]] = defaultdict(list)
    for spell in sorted(logs.spells, key=lambda each: each.since):
        spells[spell.room, spell.user].append(spell)
        if spell.until is None:
            there[spell.room].add(spell.user)
    for asked in logs.lists:
        for user in sorted(there[asked.room] - asked.users):
            yield Violation("presence", f"{user} is in {asked.room} and not in the list of {asked.observer}")
        for user in sorted(asked.users - there[asked.room]):
            yield Violation(
                "presence", f"{user} has left {asked.room} and is in the list of {asked.observer}"
            )
    told: dict[tuple[str, str, str], float] = {}
    for left in sorted(logs.departures, key=lambda each: each.at):
        whose = (left.observer, left.room, left.user)
        if any(outage.since <= left.at <= outage.until + OUTAGE_SECONDS for outage in logs.outages):
            told.pop(whose, None)
            continue
        yield from _departure(left, told.get(whose), spells[left.room, left.user])
        told[whose] = left.at


def _departure(left: Left, told: float | None, spells: list[Spell]) -> Iterator[Violation]:
    at = f"{left.observer} was told that {left.user} had left {left.room}"
    since = told if told is not None else float("-inf")
    if not any(spell.since <= left.at and (spell.until is None or spell.until > since) for spell in spells):
        again = "again, without having come back" if told is not None else "without having been there"
        yield Violation("presence", f"{at} {again}")
    if any(
        spell.since < left.at - LATE_SECONDS and (spell.until is None or spell.until > left.at)
        for spell in spells
    ):
        yield Violation("presence", f"{at}, where they had been all the time")


# Words ----------------------------------------------------------------------------------------------


def _name(mark: Mark) -> str:
    return f"{mark.sender}'s message {mark.number}"


def _ranges(numbers: Iterable[int]) -> str:
    """1-3, 7: as few words as numbers can be told in."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:10]]
    return ", ".join(shown) + (" …" if len(runs) > 10 else "")
