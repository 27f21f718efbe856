"""Uses the admin's pages like a browser: open a page, change fields, save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Model
from django.forms import BaseForm
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse


def address(model: type[Model], page: str, *arguments: object) -> str:
    return reverse(f"admin:rooms_{model._meta.model_name}_{page}", args=arguments)


def form_of(response: HttpResponse) -> BaseForm:
    """The form on a page."""
    return response.context["adminform"].form


def filled_in(form: BaseForm) -> dict[str, Any]:
    """The data that a browser sends for the unchanged form."""
    sent: dict[str, Any] = {}
    for field in form:
        value = field.value()
        if value is True:
            sent[field.html_name] = "on"
        elif isinstance(value, list):
            sent[field.html_name] = value
        elif value is not None and value is not False:
            sent[field.html_name] = str(value)
    return sent


def save(client: Client, row: Model, changes: Mapping[str, Any], button: str = "_save") -> HttpResponse:
    """Open the page of a row, change fields (None unticks a box) and press a button."""
    where = address(type(row), "change", row.pk)
    sent = {**filled_in(form_of(client.get(where))), **changes, button: "Save"}
    return client.post(where, {name: value for name, value in sent.items() if value is not None})


def add(client: Client, model: type[Model], fields: Mapping[str, Any]) -> HttpResponse:
    """Fill in the page for a new row and save it."""
    where = address(model, "add")
    return client.post(where, {**filled_in(form_of(client.get(where))), **fields, "_save": "Save"})


def act(client: Client, action: str, *rows: Model, **more: str) -> HttpResponse:
    """Run an action on rows of a list."""
    data = {"action": action, "_selected_action": [row.pk for row in rows], **more}
    return client.post(address(type(rows[0]), "changelist"), data)
