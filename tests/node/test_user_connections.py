"""Whoever is logged in is told on all connections, and is forgotten with the last."""

from __future__ import annotations

from rooms.node.user_connections import UserConnections
from tests.hub.codecs import Plain, Silent, connection, message, told


def test_a_user_is_told_on_every_connection_of_an_application() -> None:
    users, one, other, elsewhere = UserConnections(), connection(), connection(), connection()
    users.add("chat", "ann", one)
    users.add("chat", "ann", other)
    users.add("chat", "ann", connection(Silent()))
    users.add("chat", "bob", elsewhere)
    users.add("shop", "ann", elsewhere)
    users.tell("chat", "ann", message("hi"))
    assert [told(each) for each in (one, other, elsewhere)] == [["hi"], ["hi"], []]
    users.discard("chat", "ann", one)
    users.tell("chat", "ann", message("bye"))
    assert [told(each) for each in (one, other, elsewhere)] == [[], ["bye"], []]


def test_nothing_is_kept_of_whoever_is_gone() -> None:
    users, ann = UserConnections(), connection(Plain())
    users.add("chat", "ann", ann)
    users.discard("chat", "ann", ann)
    users.discard("chat", "ann", ann)
    users.tell("chat", "ann", message("hi"))
    assert (told(ann), users._connections) == ([], {})
