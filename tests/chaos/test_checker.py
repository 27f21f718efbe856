"""The checker passes a good run and finds each violation that is planted in its logs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.chaos.checker import RECOVERY_MAX_MESSAGES, Kind, check
from tests.chaos.logs import (
    Acknowledged,
    Departure,
    Joined,
    Logs,
    Mark,
    MemberList,
    Outage,
    Received,
    Sent,
    Stay,
    Stored,
)

pytestmark = pytest.mark.any_database

ROOMS = ("lobby", "quiet")
SENDERS = ("ann", "bob")


def good_run(rounds: int = 6) -> Logs:
    """Return the logs of two senders and three readers in two rooms.

    One reader receives all from the start, one recovers, one leaves.
    """
    logs = Logs()
    for room in ROOMS:
        for number in range(rounds):
            for sender in SENDERS:
                mark, seq = Mark(sender, number), len(logs.stored) % (2 * rounds) + 1
                logs.sent.append(Sent(room, mark, f"{sender} sends {number}"))
                logs.stored.append(Stored(room, seq, mark, f"{sender} sends {number}"))
                logs.acknowledged.append(Acknowledged(room, mark, seq))
        newest = logs.newest[room] = 2 * rounds
        logs.clients["faithful"] += [Joined(room, "e", 0, 0, False, None), *received(logs, room, 1, newest)]
        logs.clients["returning"] += [
            Joined(room, "e", 2, 2, False, None),
            *received(logs, room, 1, 4),
            Joined(room, "e", 8, 4, True, 4),
            *received(logs, room, 5, newest),
        ]
        logs.clients["gone"] += [Joined(room, "e", 2, 1, False, None), *received(logs, room, 2, 5)]
        for client in ("faithful", "returning"):
            logs.in_time.setdefault(client, {})[room] = newest
            logs.stays.append(Stay(room, client, 0, 50 if client == "returning" else None))
            logs.lists.append(MemberList(client, room, frozenset({"faithful", "returning"})))
        logs.stays.append(Stay(room, "returning", 120, None))
        logs.stays.append(Stay(room, "gone", 0, 100))
        logs.departures.append(Departure("faithful", room, "returning", 66))
        logs.departures.append(Departure("faithful", room, "gone", 116))
    return logs


def received(logs: Logs, room: str, first: int, last: int) -> list[Received]:
    rows = {row.seq: row for row in logs.stored if row.room == room}
    return [Received(room, seq, rows[seq].mark, rows[seq].text) for seq in range(first, last + 1)]


def kinds(logs: Logs) -> set[Kind]:
    return {violation.kind for violation in check(logs)}


@pytest.mark.parametrize("rounds", [4, 6, 60])
def test_a_good_run_passes(rounds: int) -> None:
    assert check(good_run(rounds)) == []


def test_an_empty_run_passes() -> None:
    assert check(Logs()) == []


# Planted violations, each with the kind as which it must be found ------------------------------------

Plant = Callable[[Logs], object]
PLANTED: dict[str, tuple[Kind, Plant]] = {}


def found_as(kind: Kind) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        PLANTED[plant.__name__] = (kind, plant)
        return plant

    return register


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
def the_counter_is_too_high(logs: Logs) -> None:
    logs.newest["lobby"] += 1


@found_as("order")
def the_counter_is_too_low(logs: Logs) -> None:
    logs.newest["lobby"] -= 1


@found_as("doubled")
def a_number_is_used_twice(logs: Logs) -> None:
    logs.stored[3] = logs.stored[3]._replace(seq=3)


@found_as("doubled")
def a_message_is_stored_twice(logs: Logs) -> None:
    logs.stored.append(logs.stored[-1]._replace(seq=logs.newest["quiet"] + 1))
    logs.newest["quiet"] += 1


@found_as("foreign")
def a_stored_message_was_not_sent(logs: Logs) -> None:
    del logs.sent[4]


@found_as("foreign")
def a_stored_message_was_sent_to_another_room(logs: Logs) -> None:
    logs.sent[4] = logs.sent[4]._replace(room="elsewhere")


@found_as("content")
def a_stored_message_was_sent_with_another_text(logs: Logs) -> None:
    logs.sent[4] = logs.sent[4]._replace(text="something else")


@found_as("lost")
def an_acknowledged_message_is_not_stored(logs: Logs) -> None:
    logs.sent.append(Sent("lobby", Mark("ann", 99), "never stored"))
    logs.acknowledged.append(Acknowledged("lobby", Mark("ann", 99), 13))


@found_as("lost")
def an_acknowledgement_has_another_number(logs: Logs) -> None:
    logs.acknowledged[2] = logs.acknowledged[2]._replace(seq=7)


@found_as("order")
def messages_of_a_sender_are_stored_out_of_order(logs: Logs) -> None:
    logs.stored[0], logs.stored[2] = (
        logs.stored[2]._replace(seq=logs.stored[0].seq),
        logs.stored[0]._replace(seq=logs.stored[2].seq),
    )


@found_as("lost")
def a_client_misses_a_message(logs: Logs) -> None:
    del logs.clients["faithful"][5]


@found_as("lost")
def a_client_misses_the_first_message(logs: Logs) -> None:
    del logs.clients["faithful"][1]


@found_as("lost")
def a_client_misses_the_last_messages(logs: Logs) -> None:
    del logs.clients["faithful"][-2:]


@found_as("lost")
def a_client_receives_the_last_message_too_late(logs: Logs) -> None:
    logs.in_time["faithful"]["quiet"] -= 1


@found_as("lost")
def a_client_misses_a_whole_room(logs: Logs) -> None:
    logs.clients["faithful"] = [each for each in logs.clients["faithful"] if each.room != "quiet"]


@found_as("lost")
def a_client_misses_a_message_of_a_recovery(logs: Logs) -> None:
    del logs.clients["returning"][6]


@found_as("lost")
def a_recovery_is_too_short(logs: Logs) -> None:
    log = logs.clients["returning"]
    log[5] = Joined("lobby", "e", 8, 3, True, 4)


@found_as("doubled")
def a_client_receives_a_message_twice(logs: Logs) -> None:
    logs.clients["faithful"].insert(5, logs.clients["faithful"][5])


@found_as("doubled")
def a_client_receives_a_message_again_at_the_end(logs: Logs) -> None:
    logs.clients["faithful"].append(logs.clients["faithful"][-3])


@found_as("doubled")
def two_messages_arrive_out_of_order(logs: Logs) -> None:
    log = logs.clients["faithful"]
    log[4], log[5] = log[5], log[4]


@found_as("doubled")
def a_recovery_repeats_a_message(logs: Logs) -> None:
    log = logs.clients["returning"]
    log.insert(6, log[4])


@found_as("content")
def a_client_receives_another_text(logs: Logs) -> None:
    log = logs.clients["faithful"]
    log[4] = Received("lobby", 4, Mark("bob", 1), "not what bob sent")


@found_as("content")
def a_client_receives_another_sender(logs: Logs) -> None:
    log = logs.clients["faithful"]
    log[4] = Received("lobby", 4, Mark("eve", 1), "bob sends 1")


@found_as("foreign")
def a_client_receives_a_message_that_is_not_stored(logs: Logs) -> None:
    logs.clients["faithful"].append(Received("quiet", 13, Mark("ann", 99), "ann sends 99"))


@found_as("order")
def a_client_receives_a_message_before_its_join(logs: Logs) -> None:
    log = logs.clients["gone"]
    log[0], log[1] = log[1], log[0]


@found_as("order")
def a_client_recovers_from_a_position_that_it_has_not_reached(logs: Logs) -> None:
    log = logs.clients["returning"]
    log[5] = Joined("lobby", "e", 8, 2, True, 6)


@found_as("lost")
def a_client_starts_anew_without_need(logs: Logs) -> None:
    log = logs.clients["returning"]
    log[5] = Joined("lobby", "e", 8, 4, False, 4)


@found_as("lost")
def the_epoch_changes(logs: Logs) -> None:
    log = logs.clients["returning"]
    log[5] = Joined("lobby", "f", 8, 4, True, 4)


@found_as("presence")
def a_member_is_not_listed(logs: Logs) -> None:
    logs.lists[0] = MemberList("faithful", "lobby", frozenset({"returning"}))


@found_as("presence")
def a_user_that_left_is_listed(logs: Logs) -> None:
    logs.lists[0] = MemberList("faithful", "lobby", frozenset({"faithful", "returning", "gone"}))


@found_as("presence")
def a_departure_is_reported_twice(logs: Logs) -> None:
    logs.departures.append(Departure("faithful", "lobby", "gone", 117))


@found_as("presence")
def a_departure_without_a_stay_is_reported(logs: Logs) -> None:
    logs.departures.append(Departure("faithful", "lobby", "eve", 20))


@found_as("presence")
def a_departure_of_a_member_is_reported(logs: Logs) -> None:
    logs.departures.append(Departure("returning", "lobby", "faithful", 90))


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(name: str) -> None:
    kind, plant = PLANTED[name]
    logs = good_run()
    plant(logs)
    assert kind in kinds(logs)


def test_a_client_that_missed_too_much_may_start_anew() -> None:
    logs = good_run(rounds=RECOVERY_MAX_MESSAGES)
    log = logs.clients["returning"]
    newest = logs.newest["lobby"]
    begin = log.index(Joined("lobby", "e", 8, 4, True, 4))
    end = log.index(Joined("quiet", "e", 2, 2, False, None))
    log[begin:end] = [
        Joined("lobby", "e", newest, 50, False, 4),
        *received(logs, "lobby", newest - 49, newest),
    ]
    assert check(logs) == []


def test_a_departure_may_be_reported_twice_during_an_outage() -> None:
    logs = good_run()
    a_departure_is_reported_twice(logs)
    logs.outages.append(Outage(90, 100))
    assert check(logs) == []
    logs.outages[0] = Outage(10, 20)
    assert kinds(logs) == {"presence"}


@given(some.data())
def test_any_lost_doubled_or_swapped_push_is_found(data: some.DataObject) -> None:
    logs = good_run()
    log = logs.clients[data.draw(some.sampled_from(["faithful", "returning"]))]
    pushes = [index for index, each in enumerate(log) if isinstance(each, Received)]
    index = data.draw(some.sampled_from(pushes))
    match data.draw(some.sampled_from(["lose", "double", "swap", "change"])):
        case "lose":
            del log[index]
        case "double":
            log.insert(index + data.draw(some.integers(0, 3)), log[index])
        case "swap":
            other = data.draw(some.sampled_from([each for each in pushes if log[each] != log[index]]))
            log[index], log[other] = log[other], log[index]
        case "change":
            log[index] = log[index]._replace(text="changed")  # type: ignore[call-arg]
    assert check(logs)


@given(some.data())
def test_any_change_of_the_stored_messages_is_found(data: some.DataObject) -> None:
    logs = good_run()
    index = data.draw(some.integers(0, len(logs.stored) - 1))
    match data.draw(some.sampled_from(["lose", "double", "swap", "change"])):
        case "lose":
            del logs.stored[index]
        case "double":
            logs.stored.append(logs.stored[index])
        case "swap":
            other = data.draw(some.sampled_from([each for each in range(len(logs.stored)) if each != index]))
            first, second = logs.stored[index], logs.stored[other]
            logs.stored[index] = first._replace(mark=second.mark, text=second.text)
            logs.stored[other] = second._replace(mark=first.mark, text=first.text)
            if first.mark == second.mark:
                return  # the same message in two rooms: nothing has changed
        case "change":
            logs.stored[index] = logs.stored[index]._replace(text="changed")
    assert check(logs)
