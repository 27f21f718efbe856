"""Check the logs of a run against the promises of ``docs/reliability.md``, without IO.

``check`` returns the violations; an empty list is a good run. It trusts nothing that the server reports about
itself: the identity of a message is what its sender wrote into it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from tests.chaos.logs import Departure, Joined, Logs, Mark, Received, Sent, Stay, Stored

#: A recovery returns at most this many messages; after more the client starts anew.
RECOVERY_MAX_MESSAGES = 300
#: Presence events may be this late when the layer was frozen meanwhile.
MAX_DELAY = 15.0
#: After an outage of presence each process reports the departures that it knows itself: after the grace
#: period, and late by the same time.
AFTER_OUTAGE = 15.0 + MAX_DELAY

Kind = Literal["lost", "doubled", "order", "content", "foreign", "presence"]


class Violation(NamedTuple):
    """A broken promise; ``count`` is the number of messages or users that it concerns."""

    kind: Kind
    text: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def check(logs: Logs) -> list[Violation]:
    """Return all violations of a run."""
    stored = {(each.room, each.seq): each for each in logs.stored}
    found = [
        *_numbering(logs),
        *_contents(logs),
        *_acknowledgements(logs, stored),
        *_sender_order(logs.stored),
    ]
    for client, log in logs.clients.items():
        found += _deliveries(client, log, stored)
        found += _last_messages(client, log, logs)
    return [*found, *_presence(logs)]


# The server's history -------------------------------------------------------------------------------


def _numbering(logs: Logs) -> Iterator[Violation]:
    """The numbers of a room are 1, 2, 3 … to its counter, each once; a message has one of them."""
    by_room: defaultdict[str, list[int]] = defaultdict(list)
    marks: defaultdict[tuple[str, Mark], list[int]] = defaultdict(list)
    for each in logs.stored:
        by_room[each.room].append(each.seq)
        marks[each.room, each.mark].append(each.seq)
    for room in sorted({*by_room, *logs.newest}):
        seqs = by_room[room]
        newest = logs.newest.get(room, max(seqs, default=0))
        if missing := set(range(1, newest + 1)) - set(seqs):
            text = f"the history of {room} has no {_ranges(missing)}, and its counter is at {newest}"
            yield Violation("lost", text, len(missing))
        if beyond := {seq for seq in seqs if not 1 <= seq <= newest}:
            text = f"the history of {room} has {_ranges(beyond)}, and its counter is at {newest}"
            yield Violation("order", text, len(beyond))
        if twice := {seq for seq, times in Counter(seqs).items() if times > 1}:
            yield Violation("doubled", f"the history of {room} has {_ranges(twice)} twice", len(twice))
    for (room, mark), numbers in marks.items():
        if len(numbers) > 1:
            text = f"{_name(mark)} is stored in {room} as {_ranges(numbers)}"
            yield Violation("doubled", text, len(numbers) - 1)


def _contents(logs: Logs) -> Iterator[Violation]:
    """Each stored message was sent, with the same content."""
    sent: dict[tuple[str, Mark], Sent] = {(each.room, each.mark): each for each in logs.sent}
    for each in logs.stored:
        original = sent.get((each.room, each.mark))
        if original is None:
            text = f"{each.room} {each.seq} is {_name(each.mark)}, which was not sent there"
            yield Violation("foreign", text)
        elif original.text != each.text:
            text = f"{each.room} {each.seq} is stored as {each.text!r} and was sent as {original.text!r}"
            yield Violation("content", text)


def _acknowledgements(logs: Logs, stored: dict[tuple[str, int], Stored]) -> Iterator[Violation]:
    """Each acknowledged message is stored under the number of its acknowledgement."""
    for each in set(logs.acknowledged):
        row = stored.get((each.room, each.seq))
        if row is None or row.mark != each.mark:
            where = "nothing" if row is None else _name(row.mark)
            text = f"{_name(each.mark)} was acknowledged as {each.room} {each.seq}, where there is {where}"
            yield Violation("lost", text)


def _sender_order(stored: Iterable[Stored]) -> Iterator[Violation]:
    """The messages of a sender are stored in the order in which they were sent to the room."""
    last: dict[tuple[str, str], int] = {}
    for each in sorted(stored, key=lambda row: (row.room, row.seq)):
        before = last.get((each.room, each.mark.sender), -1)
        if each.mark.number < before:
            text = f"in {each.room} {_name(each.mark)} is after {_name(Mark(each.mark.sender, before))}"
            yield Violation("order", text)
        last[each.room, each.mark.sender] = max(before, each.mark.number)


# Deliveries to clients ------------------------------------------------------------------------------


def _deliveries(
    client: str, log: Iterable[Joined | Received], stored: dict[tuple[str, int], Stored]
) -> Iterator[Violation]:
    """From its first position a client receives each number once, in order, and as it is stored."""
    expected: dict[str, int] = {}
    epochs: dict[str, str] = {}
    for each in log:
        if isinstance(each, Joined):
            yield from _join(client, each, expected.get(each.room), epochs)
            since = each.since if each.recovered else None
            expected[each.room] = (each.position - each.messages if since is None else since) + 1
            continue
        number = expected.get(each.room)
        if number is None:
            yield Violation("order", f"{client} received {each.room} {each.seq} before its join")
        elif each.seq > number:
            text = f"{client} received {each.room} {each.seq}, expected {number}"
            yield Violation("lost", text, each.seq - number)
        elif each.seq < number:
            yield Violation("doubled", f"{client} received {each.room} {each.seq}, expected {number}")
        expected[each.room] = max(number or 0, each.seq + 1)
        row = stored.get((each.room, each.seq))
        if row is None:
            text = f"{client} received {each.room} {each.seq}, {_name(each.mark)}, which is not stored"
            yield Violation("foreign", text)
        elif (row.mark, row.text) != (each.mark, each.text):
            text = f"{client} received {each.room} {each.seq} as {_name(each.mark)}, not {_name(row.mark)}"
            yield Violation("content", text)


def _join(client: str, joined: Joined, expected: int | None, epochs: dict[str, str]) -> Iterator[Violation]:
    """A recovery returns exactly what was missed, or starts anew because that is too much."""
    room = joined.room
    if (epoch := epochs.setdefault(room, joined.epoch)) != joined.epoch:
        yield Violation("lost", f"{client} found {room} with the epoch {joined.epoch} instead of {epoch}")
        epochs[room] = joined.epoch
    if joined.since is None:
        return
    missed = joined.position - joined.since
    if expected is not None and joined.since + 1 > expected:
        text = f"{client} recovered {room} after {joined.since} and had received up to {expected - 1} only"
        yield Violation("order", text)
    if joined.recovered and joined.messages != missed:
        text = f"{client} had missed {missed} messages in {room} and recovered {joined.messages}"
        yield Violation("lost", text, abs(missed - joined.messages))
    if not joined.recovered and 0 <= missed <= RECOVERY_MAX_MESSAGES:
        text = f"{client} had missed only {missed} messages in {room} and had to start anew"
        yield Violation("lost", text, missed)


def _last_messages(client: str, log: Iterable[Joined | Received], logs: Logs) -> Iterator[Violation]:
    """A remaining client has received everything at the end, and in time."""
    newest: dict[str, int] = {}
    for each in log:
        seq = each.position - each.messages if isinstance(each, Joined) else each.seq
        newest[each.room] = max(newest.get(each.room, 0), seq)
    for room, in_time in sorted(logs.in_time.get(client, {}).items()):
        end, last = logs.newest.get(room, 0), min(in_time, newest.get(room, 0))
        if last < end:
            text = f"{client} was in {room} to the end and had received nothing after {last} of {end}"
            yield Violation("lost", text, end - last)


# Presence -------------------------------------------------------------------------------------------


def _presence(logs: Logs) -> Iterator[Violation]:
    """Member lists are right at the end; each departure is reported once and of a user that left."""
    present: defaultdict[str, set[str]] = defaultdict(set)
    stays: defaultdict[tuple[str, str], list[Stay]] = defaultdict(list)
    for stay in sorted(logs.stays, key=lambda each: each.since):
        stays[stay.room, stay.user].append(stay)
        if stay.until is None:
            present[stay.room].add(stay.user)
    for each in logs.lists:
        for user in sorted(present[each.room] - each.users):
            yield Violation("presence", f"{user} is in {each.room} and not in the list of {each.observer}")
        for user in sorted(each.users - present[each.room]):
            yield Violation("presence", f"{user} has left {each.room} and is in the list of {each.observer}")
    reported: dict[tuple[str, str, str], float] = {}
    for left in sorted(logs.departures, key=lambda each: each.at):
        key = (left.observer, left.room, left.user)
        if any(outage.since <= left.at <= outage.until + AFTER_OUTAGE for outage in logs.outages):
            reported.pop(key, None)
            continue
        yield from _departure(left, reported.get(key), stays[left.room, left.user])
        reported[key] = left.at


def _departure(left: Departure, before: float | None, stays: list[Stay]) -> Iterator[Violation]:
    """``before`` is the time of the departure that the observer received before this one."""
    text = f"{left.observer} received that {left.user} had left {left.room}"
    since = before if before is not None else float("-inf")
    if not any(stay.since <= left.at and (stay.until is None or stay.until > since) for stay in stays):
        reason = "again, without a return" if before is not None else "without a stay"
        yield Violation("presence", f"{text} {reason}")
    if any(
        stay.since < left.at - MAX_DELAY and (stay.until is None or stay.until > left.at) for stay in stays
    ):
        yield Violation("presence", f"{text} during a stay")


# Texts ----------------------------------------------------------------------------------------------


def _name(mark: Mark) -> str:
    return f"{mark.sender}'s message {mark.number}"


def _ranges(numbers: Iterable[int]) -> str:
    """Return numbers as ranges: 1-3, 7."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:10]]
    return ", ".join(texts) + (" …" if len(runs) > 10 else "")
