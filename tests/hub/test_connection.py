"""A connection: its identities, and the messages it has in flight."""

from __future__ import annotations

import asyncio

from tests.hub.factories import connection, guest, make_room


def test_repr_names_the_user() -> None:
    assert "not logged in" in repr(connection())
    assert "'ann'" in repr(connection(user="ann"))


def test_the_socket_is_named_by_the_id() -> None:
    ann = connection()
    assert ann.socket == ann.id


def test_identities_are_the_user_and_the_account() -> None:
    ann = connection()
    assert ann.identities == ()
    ann.user = guest("ann")
    assert ann.identities == (guest("ann"),)
    ann.account = guest("account")
    assert set(ann.identities) == {guest("ann"), guest("account")}
    ann.user = None
    assert ann.identities == (guest("account"),)


def test_a_connection_is_busy_during_a_command_and_with_messages_in_flight() -> None:
    ann = connection()
    assert not ann.is_busy()
    ann.busy = True
    assert ann.is_busy()
    ann.busy, ann.in_flight = False, 1
    assert ann.is_busy()
    ann.mark_acknowledged()
    assert not ann.is_busy()


def test_the_room_of_messages_in_flight_is_forgotten_with_the_last_of_them() -> None:
    ann, room = connection(), make_room()
    ann.in_flight, ann.in_flight_room = 2, room
    ann.mark_acknowledged()
    assert ann.in_flight_room is room
    ann.mark_acknowledged()
    assert ann.in_flight_room is None


async def test_wait_idle_returns_at_once_without_messages_in_flight() -> None:
    waiting = connection().wait_idle()
    try:
        waiting.send(None)
    except StopIteration:
        return
    raise AssertionError("Expected wait_idle() to return at once.")


async def test_wait_idle_waits_for_all_messages_in_flight() -> None:
    ann = connection()
    ann.in_flight = 2
    waiting = [asyncio.ensure_future(ann.wait_idle()) for _ in range(2)]
    await asyncio.sleep(0)
    ann.mark_acknowledged()
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    ann.mark_acknowledged()
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert ann.in_flight == 0


async def test_wait_idle_waits_for_a_message_that_follows_the_last_acknowledgement() -> None:
    ann = connection()
    ann.in_flight = 1
    waiting = asyncio.ensure_future(ann.wait_idle())
    await asyncio.sleep(0)
    ann.mark_acknowledged()
    # Sent before the waiting task runs again.
    ann.in_flight = 1
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    ann.mark_acknowledged()
    await asyncio.wait_for(waiting, 5)


async def test_a_cancelled_wait_leaves_the_others_waiting() -> None:
    ann = connection()
    ann.in_flight = 1
    cancelled, waiting = (asyncio.ensure_future(ann.wait_idle()) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    assert not waiting.done()
    ann.mark_acknowledged()
    await asyncio.wait_for(waiting, 5)
