"""An application: its connections by number, and events for all connections of a user."""

from __future__ import annotations

from tests.hub.codecs import Plain, Silent
from tests.hub.factories import connection, make_application, message, received


def test_connections_are_numbered_from_1_and_numbers_are_not_reused() -> None:
    application, connections = make_application(), [connection() for _ in range(3)]
    application.add(connections[0])
    application.add(connections[1])
    assert application.connections == {1: connections[0], 2: connections[1]}
    application.discard(connections[1])
    application.add(connections[2])
    assert application.connections == {1: connections[0], 3: connections[2]}
    assert [each.number for each in connections] == [1, 2, 3]


def test_members_receive_events_of_the_application() -> None:
    application, ann, bob = make_application(), connection(), connection()
    application.add(ann)
    application.add(bob)
    application.members.broadcast(message("hi"))
    assert (received(ann), received(bob)) == (["hi"], ["hi"])


def test_only_watchers_receive_events_of_the_room_list() -> None:
    application, ann, bob = make_application(), connection(), connection()
    for each in (ann, bob):
        application.add(each)
    application.room_list.add(ann)
    application.room_list.broadcast(message("hi"))
    assert (received(ann), received(bob)) == (["hi"], [])


def test_discard_returns_whether_the_last_connection_left() -> None:
    application, ann, bob = make_application(), connection(), connection()
    assert application.discard(ann) is False
    for each in (ann, bob):
        application.add(each)
        application.room_list.add(each)
    assert application.discard(ann) is False
    assert application.discard(bob) is True
    assert application.discard(bob) is False
    assert (application.connections, application.members.members, application.room_list.members) == (
        {},
        {},
        {},
    )


def test_keys_contain_the_primary_key() -> None:
    application = make_application(id=7)
    assert (application.key, application.room_list.key) == ("application.7", "watchers.7")


def test_all_connections_of_a_user_receive_an_event_for_the_user() -> None:
    chat, shop = make_application(), make_application(id=2, name="shop")
    one, other, elsewhere = connection(), connection(), connection()
    chat.add_user("ann", one)
    chat.add_user("ann", other)
    chat.add_user("ann", connection(Silent()))
    chat.add_user("bob", elsewhere)
    shop.add_user("ann", elsewhere)
    chat.send_to_user("ann", message("hi"))
    assert [received(each) for each in (one, other, elsewhere)] == [["hi"], ["hi"], []]
    chat.discard_user("ann", one)
    chat.send_to_user("ann", message("bye"))
    assert [received(each) for each in (one, other, elsewhere)] == [[], ["bye"], []]


def test_an_event_for_a_user_is_corked() -> None:
    application, ann = make_application(), connection()
    application.add_user("ann", ann)
    ann.cork()
    application.send_to_user("ann", message("hi"))
    assert received(ann) == []
    ann.uncork()
    assert received(ann) == ["hi"]


def test_a_user_is_forgotten_with_the_last_connection() -> None:
    application, ann = make_application(), connection(Plain())
    application.add_user("ann", ann)
    application.discard_user("ann", ann)
    application.discard_user("ann", ann)
    application.send_to_user("ann", message("hi"))
    assert (received(ann), application._by_user) == ([], {})
