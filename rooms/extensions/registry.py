"""The registered extensions by name, and their settings.

The name of an extension is the package of its module and the class name: ``quizzes.Quiz`` for ``Quiz`` in
``quizzes/extensions.py``. The rows of applications and rooms hold that name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from django import forms
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.module_loading import autodiscover_modules

from rooms.extensions.base import Extension

logger = logging.getLogger("rooms.extensions")
Class = TypeVar("Class", bound=type[Extension])

_extensions: dict[str, type[Extension]] = {}


def register(extension: Class) -> Class:
    """Register an extension. Raises ValueError for a duplicate name."""
    if not (isinstance(extension, type) and issubclass(extension, Extension)):
        raise TypeError(f"Expected a subclass of Extension, got @register({extension!r}).")
    name = f"{extension.__module__.removesuffix('.extensions')}.{extension.__name__}"
    if name in _extensions and _extensions[name] is not extension:
        raise ValueError(f"The extension {name} is already registered.")
    _extensions[name] = extension
    return extension


def unregister(extension: type[Extension]) -> None:
    """Remove an extension, for tests."""
    for name in [name for name, each in _extensions.items() if each is extension]:
        del _extensions[name]


def autodiscover() -> None:
    """Import ``extensions.py`` of every installed app."""
    autodiscover_modules("extensions")


def names() -> list[str]:
    return sorted(_extensions)


def find(name: str) -> type[Extension] | None:
    """Return the extension of that name; None where the site has none."""
    return _extensions.get(name)


def settings_form(extension: type[Extension], stored: Mapping[str, Any]) -> forms.Form:
    """Return the bound form with the stored values, else the initial ones."""
    unbound = extension.Settings()
    values = {
        name: stored.get(name, unbound.get_initial_for_field(field, name))
        for name, field in unbound.fields.items()
    }
    return extension.Settings(data=values)


def read_settings(extension: type[Extension], stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the cleaned settings; the initial ones if the stored are invalid."""
    form = settings_form(extension, stored)
    if not form.is_valid():
        logger.error("The stored settings of %s are invalid: %s", extension.__name__, form.errors.as_json())
        form = settings_form(extension, {})
        form.is_valid()
    return MappingProxyType(dict(form.cleaned_data))


def store_settings(form: forms.Form) -> dict[str, Any]:
    """Return the values of a valid form as JSON, with rows as primary keys."""
    values = {name: field.prepare_value(form.cleaned_data[name]) for name, field in form.fields.items()}
    stored: dict[str, Any] = json.loads(json.dumps(values, cls=DjangoJSONEncoder))
    return stored
