"""Which guest names belong to accounts."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from rooms.node.accounts import are_registered
from rooms.protocol import validators

pytestmark = pytest.mark.django_db


def create(*names: str) -> None:
    model = get_user_model()
    model._default_manager.bulk_create(model(username=name) for name in names)


def taken(*names: str) -> list[str]:
    """The names that belong to accounts."""
    found = are_registered({validators.user_key(name): name for name in names})
    return [name for name in names if found[validators.user_key(name)]]


@pytest.mark.parametrize(
    ("account", "spellings"),
    [
        ("Ann", ["ann", "ANN", "Ann", "aNN"]),
        ("STRASSE", ["strasse", "straße", "STRASSE", "Straße"]),
        ("straße", ["strasse", "straße", "STRASSE"]),
        ("Éva", ["éva", "ÉVA"]),
        ("ΣΊΣΥΦΟΣ", ["σίσυφος", "ΣΊΣΥΦΟΣ"]),
        ("a.b+c@d-e_f", ["A.B+C@D-E_F"]),
    ],
)
def test_a_name_belongs_to_an_account_in_any_spelling(account: str, spellings: list[str]) -> None:
    create(account)
    assert taken(*spellings) == spellings


@pytest.mark.parametrize(
    "name", ["anna", "an", "a.n", "a%", "_nn", ".*", "ann ", "bnn", "", "änn", "a(ss|.)n"]
)
def test_other_names_belong_to_no_account(name: str) -> None:
    create("ann", "ass", "class")
    assert taken(name) == []


def test_many_names_are_looked_up_by_two_queries() -> None:
    create("ann", "Éva", "strasse")
    names = ["ANN", "bob", "éva", "ève", "STRASSE", *(f"guest {number}" for number in range(50))]
    with CaptureQueriesContext(connection) as queries:
        assert taken(*names) == ["ANN", "éva", "STRASSE"]
    assert len(queries) == 2


def test_names_of_ascii_letters_are_looked_up_by_one_query() -> None:
    with CaptureQueriesContext(connection) as queries:
        assert taken("ann", "bob") == []
    assert len(queries) == 1


def test_without_names_there_is_no_query() -> None:
    with CaptureQueriesContext(connection) as queries:
        assert are_registered({}) == {}
    assert len(queries) == 0
