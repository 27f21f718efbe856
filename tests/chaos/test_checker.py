"""The checker passes a good run and finds what can go wrong in one: logs are spoiled one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.chaos.checker import RECOVERY_MAX_MESSAGES, Kind, check
from tests.chaos.logs import (
    Acknowledged,
    ClientMessage,
    Entered,
    Heard,
    Left,
    Logs,
    Mark,
    Outage,
    Sent,
    Spell,
    Stored,
)

ROOMS = ("lobby", "quiet")
SENDERS = ("ann", "bob")


def good_run(rounds: int = 6) -> Logs:
    """Two senders in two rooms. One reader hears all from the start, one comes back, one begins anew."""
    logs = Logs()
    for room in ROOMS:
        for number in range(rounds):
            for sender in SENDERS:
                mark, seq = Mark(sender, number), len(logs.stored) % (2 * rounds) + 1
                logs.sent.append(Sent(room, mark, f"{sender} says {number}"))
                logs.stored.append(Stored(room, seq, mark, f"{sender} says {number}"))
                logs.acknowledged.append(Acknowledged(room, mark, seq))
        newest = logs.newest[room] = 2 * rounds
        logs.clients["faithful"] += [Entered(room, "e", 0, 0, False, None), *heard(logs, room, 1, newest)]
        logs.clients["returning"] += [
            Entered(room, "e", 2, 2, False, None),
            *heard(logs, room, 1, 4),
            Entered(room, "e", 8, 4, True, 4),
            *heard(logs, room, 5, newest),
        ]
        logs.clients["gone"] += [Entered(room, "e", 2, 1, False, None), *heard(logs, room, 2, 5)]
        for client in ("faithful", "returning"):
            logs.in_time.setdefault(client, {})[room] = newest
            logs.spells.append(Spell(room, client, 0, 50 if client == "returning" else None))
            logs.lists.append(ClientMessage(client, room, frozenset({"faithful", "returning"})))
        logs.spells.append(Spell(room, "returning", 120, None))
        logs.spells.append(Spell(room, "gone", 0, 100))
        logs.departures.append(Left("faithful", room, "returning", 66))
        logs.departures.append(Left("faithful", room, "gone", 116))
    return logs


def heard(logs: Logs, room: str, first: int, last: int) -> list[Heard]:
    rows = {row.seq: row for row in logs.stored if row.room == room}
    return [Heard(room, seq, rows[seq].mark, rows[seq].text) for seq in range(first, last + 1)]


def kinds(logs: Logs) -> set[Kind]:
    return {violation.kind for violation in check(logs)}


@pytest.mark.parametrize("rounds", [4, 6, 60])
def test_a_good_run_passes(rounds: int) -> None:
    assert check(good_run(rounds)) == []


def test_an_empty_run_passes() -> None:
    assert check(Logs()) == []


# One change each, and what it has to be found as -----------------------------------------------------

Spoil = Callable[[Logs], object]
SPOILED: dict[str, tuple[Kind, Spoil]] = {}


def found_as(kind: Kind) -> Callable[[Spoil], Spoil]:
    def kept(spoil: Spoil) -> Spoil:
        SPOILED[spoil.__name__] = (kind, spoil)
        return spoil

    return kept


@found_as("lost")
def a_row_is_missing(logs: Logs) -> None:
    del logs.stored[3]


@found_as("lost")
def the_newest_row_is_missing(logs: Logs) -> None:
    del logs.stored[-1]


@found_as("lost")
def a_room_is_missing(logs: Logs) -> None:
    logs.stored = [row for row in logs.stored if row.room != "quiet"]


@found_as("lost")
def the_counter_runs_ahead(logs: Logs) -> None:
    logs.newest["lobby"] += 1


@found_as("order")
def the_counter_lags_behind(logs: Logs) -> None:
    logs.newest["lobby"] -= 1


@found_as("doubled")
def a_number_is_given_twice(logs: Logs) -> None:
    logs.stored[3] = logs.stored[3]._replace(seq=3)


@found_as("doubled")
def a_message_is_stored_twice(logs: Logs) -> None:
    logs.stored.append(logs.stored[-1]._replace(seq=logs.newest["quiet"] + 1))
    logs.newest["quiet"] += 1


@found_as("foreign")
def nobody_sent_it(logs: Logs) -> None:
    del logs.sent[4]


@found_as("foreign")
def it_was_sent_to_another_room(logs: Logs) -> None:
    logs.sent[4] = logs.sent[4]._replace(room="elsewhere")


@found_as("content")
def it_was_sent_otherwise(logs: Logs) -> None:
    logs.sent[4] = logs.sent[4]._replace(text="something else")


@found_as("lost")
def it_was_acknowledged_and_never_stored(logs: Logs) -> None:
    logs.sent.append(Sent("lobby", Mark("ann", 99), "never stored"))
    logs.acknowledged.append(Acknowledged("lobby", Mark("ann", 99), 13))


@found_as("lost")
def it_was_acknowledged_with_another_number(logs: Logs) -> None:
    logs.acknowledged[2] = logs.acknowledged[2]._replace(seq=7)


@found_as("order")
def a_sender_is_stored_out_of_order(logs: Logs) -> None:
    logs.stored[0], logs.stored[2] = (
        logs.stored[2]._replace(seq=logs.stored[0].seq),
        logs.stored[0]._replace(seq=logs.stored[2].seq),
    )


@found_as("lost")
def a_client_misses_one(logs: Logs) -> None:
    del logs.clients["faithful"][5]


@found_as("lost")
def a_client_misses_the_first(logs: Logs) -> None:
    del logs.clients["faithful"][1]


@found_as("lost")
def a_client_misses_the_tail(logs: Logs) -> None:
    del logs.clients["faithful"][-2:]


@found_as("lost")
def a_client_hears_the_tail_too_late(logs: Logs) -> None:
    logs.in_time["faithful"]["quiet"] -= 1


@found_as("lost")
def a_client_misses_a_whole_room(logs: Logs) -> None:
    logs.clients["faithful"] = [each for each in logs.clients["faithful"] if each.room != "quiet"]


@found_as("lost")
def a_client_misses_one_of_a_recovery(logs: Logs) -> None:
    del logs.clients["returning"][6]


@found_as("lost")
def a_recovery_is_too_short(logs: Logs) -> None:
    log = logs.clients["returning"]
    log[5] = Entered("lobby", "e", 8, 3, True, 4)


@found_as("doubled")
def a_client_hears_one_twice(logs: Logs) -> None:
    logs.clients["faithful"].insert(5, logs.clients["faithful"][5])


@found_as("doubled")
def a_client_hears_one_again_at_the_end(logs: Logs) -> None:
    logs.clients["faithful"].append(logs.clients["faithful"][-3])


@found_as("doubled")
def two_come_in_the_wrong_order(logs: Logs) -> None:
    log = logs.clients["faithful"]
    log[4], log[5] = log[5], log[4]


@found_as("doubled")
def a_recovery_repeats_what_was_heard(logs: Logs) -> None:
    log = logs.clients["returning"]
    log.insert(6, log[4])


@found_as("content")
def a_client_hears_something_else(logs: Logs) -> None:
    log = logs.clients["faithful"]
    log[4] = Heard("lobby", 4, Mark("bob", 1), "bob never said so")


@found_as("content")
def a_client_hears_somebody_else(logs: Logs) -> None:
    log = logs.clients["faithful"]
    log[4] = Heard("lobby", 4, Mark("eve", 1), "bob says 1")


@found_as("foreign")
def a_client_hears_what_is_not_stored(logs: Logs) -> None:
    logs.clients["faithful"].append(Heard("quiet", 13, Mark("ann", 99), "ann says 99"))


@found_as("order")
def a_client_hears_before_it_has_entered(logs: Logs) -> None:
    log = logs.clients["gone"]
    log[0], log[1] = log[1], log[0]


@found_as("order")
def a_client_claims_more_than_it_heard(logs: Logs) -> None:
    log = logs.clients["returning"]
    log[5] = Entered("lobby", "e", 8, 2, True, 6)


@found_as("lost")
def a_client_begins_anew_without_need(logs: Logs) -> None:
    log = logs.clients["returning"]
    log[5] = Entered("lobby", "e", 8, 4, False, 4)


@found_as("lost")
def the_epoch_changes(logs: Logs) -> None:
    log = logs.clients["returning"]
    log[5] = Entered("lobby", "f", 8, 4, True, 4)


@found_as("presence")
def one_who_is_there_is_not_listed(logs: Logs) -> None:
    logs.lists[0] = ClientMessage("faithful", "lobby", frozenset({"returning"}))


@found_as("presence")
def one_who_left_is_listed(logs: Logs) -> None:
    logs.lists[0] = ClientMessage("faithful", "lobby", frozenset({"faithful", "returning", "gone"}))


@found_as("presence")
def a_departure_is_told_twice(logs: Logs) -> None:
    logs.departures.append(Left("faithful", "lobby", "gone", 117))


@found_as("presence")
def a_stranger_departs(logs: Logs) -> None:
    logs.departures.append(Left("faithful", "lobby", "eve", 20))


@found_as("presence")
def one_departs_who_stays(logs: Logs) -> None:
    logs.departures.append(Left("returning", "lobby", "faithful", 90))


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_run_is_found(name: str) -> None:
    kind, spoil = SPOILED[name]
    logs = good_run()
    spoil(logs)
    assert kind in kinds(logs)


def test_one_who_missed_too_much_may_begin_anew() -> None:
    logs = good_run(rounds=RECOVERY_MAX_MESSAGES)
    log = logs.clients["returning"]
    newest = logs.newest["lobby"]
    place = log.index(Entered("lobby", "e", 8, 4, True, 4))
    end = log.index(Entered("quiet", "e", 2, 2, False, None))
    log[place:end] = [Entered("lobby", "e", newest, 50, False, 4), *heard(logs, "lobby", newest - 49, newest)]
    assert check(logs) == []


def test_while_processes_do_not_share_who_is_there_each_may_tell_of_a_departure() -> None:
    logs = good_run()
    a_departure_is_told_twice(logs)
    logs.outages.append(Outage(90, 100))
    assert check(logs) == []
    logs.outages[0] = Outage(10, 20)
    assert kinds(logs) == {"presence"}


@given(some.data())
def test_any_lost_doubled_or_swapped_push_is_found(data: some.DataObject) -> None:
    logs = good_run()
    log = logs.clients[data.draw(some.sampled_from(["faithful", "returning"]))]
    pushes = [place for place, each in enumerate(log) if isinstance(each, Heard)]
    place = data.draw(some.sampled_from(pushes))
    match data.draw(some.sampled_from(["lose", "double", "swap", "change"])):
        case "lose":
            del log[place]
        case "double":
            log.insert(place + data.draw(some.integers(0, 3)), log[place])
        case "swap":
            other = data.draw(some.sampled_from([each for each in pushes if log[each] != log[place]]))
            log[place], log[other] = log[other], log[place]
        case "change":
            log[place] = log[place]._replace(text="changed")  # type: ignore[call-arg]
    assert check(logs)


@given(some.data())
def test_any_change_of_the_servers_log_is_found(data: some.DataObject) -> None:
    logs = good_run()
    place = data.draw(some.integers(0, len(logs.stored) - 1))
    match data.draw(some.sampled_from(["lose", "double", "swap", "change"])):
        case "lose":
            del logs.stored[place]
        case "double":
            logs.stored.append(logs.stored[place])
        case "swap":
            other = data.draw(some.sampled_from([each for each in range(len(logs.stored)) if each != place]))
            first, second = logs.stored[place], logs.stored[other]
            logs.stored[place] = first._replace(mark=second.mark, text=second.text)
            logs.stored[other] = second._replace(mark=first.mark, text=first.text)
            if first.mark == second.mark:
                return  # the same words in two rooms: nothing has changed
        case "change":
            logs.stored[place] = logs.stored[place]._replace(text="changed")
    assert check(logs)
