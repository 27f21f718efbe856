"""The choice of an extension in the admin, and its settings on the same page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from django import forms
from django.test import Client

from rooms.extensions import Extension, registry
from rooms.models import Application, Room
from tests.admin.pages import act, add, address, filled_in, form_of, save

NAME = f"{__name__}.Theatre"
PLAIN = f"{__name__}.Plain"


class Theatre(Extension):
    """Shows <plays>.

    A second paragraph.
    """

    class Settings(forms.Form):
        seats = forms.IntegerField(label="Chairs", initial=30, min_value=1, help_text="For <all>.")
        first_night = forms.DateField(initial=date(2026, 5, 1))
        standing = forms.BooleanField(initial=True, required=False)

        def clean_seats(self) -> int:
            if self.cleaned_data["seats"] == 13:
                raise forms.ValidationError("This number is not allowed.")
            return self.cleaned_data["seats"]

        def clean(self) -> dict[str, Any]:
            if self.cleaned_data.get("seats", 0) > 100 and self.cleaned_data.get("standing"):
                raise forms.ValidationError("Too full.")
            return self.cleaned_data


class Plain(Extension):
    """Has no settings."""


@pytest.fixture(autouse=True)
def extensions() -> Iterator[None]:
    for extension in (Theatre, Plain):
        registry.register(extension)
    yield
    for extension in (Theatre, Plain):
        registry.unregister(extension)


@pytest.fixture(params=[Application, Room])
def extended(request: pytest.FixtureRequest, application: Application, room: Room) -> Application | Room:
    """An application and a room with the extension."""
    row = application if request.param is Application else room
    row.extension = NAME
    row.save()
    return row


def settings_of(row: Application | Room) -> dict[str, Any]:
    row.refresh_from_db()
    return row.extension_settings


def test_the_page_shows_the_settings_in_force(client: Client, extended: Application | Room) -> None:
    response = client.get(address(type(extended), "change", extended.pk))
    form = form_of(response)
    assert {name: value for name, value in filled_in(form).items() if name.startswith("settings-")} == {
        "settings-seats": "30",
        "settings-first_night": "2026-05-01",
        "settings-standing": "on",
    }
    assert form["settings-seats"].label == "Chairs"
    assert form["settings-first_night"].label == "First night"
    assert "For <all>." in response.text
    assert f"Settings of {NAME}" in response.text
    assert "Shows &lt;plays&gt;.</option>" in response.text


def test_saved_settings_are_read_by_the_node(client: Client, extended: Application | Room) -> None:
    changes = {"settings-seats": "7", "settings-first_night": "2027-01-31", "settings-standing": None}
    assert save(client, extended, changes).status_code == 302
    assert settings_of(extended) == {"seats": 7, "first_night": "2027-01-31", "standing": False}
    assert registry.read_settings(Theatre, extended.extension_settings) == {
        "seats": 7,
        "first_night": date(2027, 1, 31),
        "standing": False,
    }
    form = form_of(client.get(address(type(extended), "change", extended.pk)))
    assert form["settings-seats"].value() == 7
    assert not form["settings-standing"].value()


def test_saving_an_unchanged_page_stores_the_default_settings(
    client: Client, extended: Application | Room
) -> None:
    where = address(type(extended), "change", extended.pk)
    form = type(form_of(client.get(where)))(filled_in(form_of(client.get(where))), instance=extended)
    assert form.is_valid()
    assert form.changed_data == []
    save(client, extended, {})
    assert settings_of(extended) == {"seats": 30, "first_night": "2026-05-01", "standing": True}


@pytest.mark.parametrize(
    ("changes", "where", "text"),
    [
        ({"settings-seats": "none"}, "settings-seats", "Enter a whole number."),
        ({"settings-seats": "0"}, "settings-seats", "greater than or equal to 1"),
        ({"settings-seats": "13"}, "settings-seats", "This number is not allowed."),
        ({"settings-seats": "101"}, "__all__", "Too full."),
    ],
)
def test_errors_of_the_extensions_form_are_shown_once_at_their_field(
    client: Client, extended: Application | Room, changes: dict[str, str], where: str, text: str
) -> None:
    response = save(client, extended, changes)
    assert response.status_code == 200
    errors = form_of(response).errors
    assert list(errors) == [where]
    assert len(errors[where]) == 1
    assert text in errors[where][0]
    assert text in response.text
    assert settings_of(extended) == {}


def test_another_extension_starts_with_its_own_settings(client: Client, extended: Application | Room) -> None:
    save(client, extended, {"settings-seats": "7"})
    # Values of the previous extension are not validated.
    changes = {"extension": "roomsite.WordFilter", "settings-seats": "none"}
    response = save(client, extended, changes)
    assert response["Location"] == address(type(extended), "change", extended.pk)
    assert settings_of(extended) == {}
    form = form_of(client.get(response["Location"]))
    assert "settings-words" in form.fields
    assert "settings-seats" not in form.fields


@pytest.mark.parametrize("chosen", [PLAIN, ""])
def test_an_extension_without_settings_adds_no_fields(
    client: Client, extended: Application | Room, chosen: str
) -> None:
    response = save(client, extended, {"extension": chosen})
    assert response["Location"] == address(type(extended), "changelist")
    page = client.get(address(type(extended), "change", extended.pk))
    assert "Settings of" not in page.text
    assert settings_of(extended) == {}


def test_a_page_with_an_error_shows_the_settings_of_the_stored_extension(
    client: Client, extended: Application | Room
) -> None:
    response = save(client, extended, {"extension": "roomsite.WordFilter", "history_size": "x"})
    assert response.status_code == 200
    form = form_of(response)
    assert form["extension"].value() == "roomsite.WordFilter"
    assert "settings-seats" in response.text
    assert "settings-words" not in response.text


def test_adding_a_row_redirects_to_its_settings(client: Client, db: None) -> None:
    response = add(client, Application, {"name": "new", "extension": NAME})
    application = Application.objects.get(name="new")
    assert response["Location"] == address(Application, "change", application.pk)
    assert add(client, Application, {"name": "newer"})["Location"] == address(Application, "changelist")


def test_the_choices_show_the_docstring_of_an_extension(client: Client, application: Application) -> None:
    form = form_of(client.get(address(Application, "change", application.pk)))
    choices = dict(form.fields["extension"].choices)
    assert {"", NAME, PLAIN, "roomsite.WordFilter", "roomsite.Quiz"} <= set(choices)
    assert choices[NAME] == f"{NAME} – Shows <plays>."


def test_an_unknown_extension_cannot_be_chosen(client: Client, application: Application) -> None:
    response = save(client, application, {"extension": "gone.Gone"})
    assert "extension" in form_of(response).errors


def test_a_missing_extension_is_reported_and_kept(client: Client, extended: Application | Room) -> None:
    extended.extension, extended.extension_settings = "gone.<Gone>", {"left": "over"}
    extended.save()
    page = client.get(address(type(extended), "change", extended.pk))
    assert "This site has no extension gone.&lt;Gone&gt;, so users cannot join." in page.text
    assert "gone.&lt;Gone&gt; (missing)" in page.text
    assert save(client, extended, {"title": "New title"}).status_code == 302
    assert settings_of(extended) == {"left": "over"}
    assert (extended.extension, extended.title) == ("gone.<Gone>", "New title")


def test_invalid_stored_settings_can_be_corrected(client: Client, extended: Application | Room) -> None:
    extended.extension_settings = {"seats": "many", "standing": False}
    extended.save()
    form = form_of(client.get(address(type(extended), "change", extended.pk)))
    assert form["settings-seats"].value() == "many"
    assert save(client, extended, {}).status_code == 200
    assert save(client, extended, {"settings-seats": "5"}).status_code == 302
    assert settings_of(extended)["seats"] == 5


def test_a_viewer_can_read_the_settings(viewer: Client, extended: Application | Room) -> None:
    extended.extension_settings = {"seats": 4321}
    extended.save()
    where = address(type(extended), "change", extended.pk)
    assert "4321" in viewer.get(where).text
    assert viewer.post(where, {}).status_code == 403
    assert act(viewer, "enable", extended).status_code == 200
