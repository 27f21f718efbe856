"""The extensions of this site by name, and their settings.

An extension's name is the package its module stands in and its own: ``quizzes.Quiz`` for ``Quiz``
in ``quizzes/extensions.py``. That name is what the rows of applications and rooms hold.
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
    """Make an extension known to the site and its admin. Raises ValueError for a name that is taken."""
    if not (isinstance(extension, type) and issubclass(extension, Extension)):
        raise TypeError(f"@register takes a subclass of Extension, got {extension!r}.")
    name = f"{extension.__module__.removesuffix('.extensions')}.{extension.__name__}"
    if name in _extensions and _extensions[name] is not extension:
        raise ValueError(f"There is an extension {name} already.")
    _extensions[name] = extension
    return extension


def unregister(extension: type[Extension]) -> None:
    """Forget an extension; for tests."""
    for name in [name for name, each in _extensions.items() if each is extension]:
        del _extensions[name]


def autodiscover() -> None:
    """Import ``extensions.py`` of every installed app."""
    autodiscover_modules("extensions")


def names() -> list[str]:
    return sorted(_extensions)


def find(name: str) -> type[Extension] | None:
    """The extension of that name; None when it is gone, which leaves its rooms usable without it."""
    return _extensions.get(name)


def settings_form(extension: type[Extension], stored: Mapping[str, Any]) -> forms.Form:
    """The bound form with the stored values, and the declared initial ones where nothing is stored."""
    unbound = extension.Settings()
    values = {
        name: stored.get(name, unbound.get_initial_for_field(field, name))
        for name, field in unbound.fields.items()
    }
    return extension.Settings(data=values)


def read_settings(extension: type[Extension], stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The cleaned settings. Stored values that are no longer lawful give way to the initial ones."""
    form = settings_form(extension, stored)
    if not form.is_valid():
        logger.error("Settings of %s are not lawful any more: %s", extension.__name__, form.errors.as_json())
        form = settings_form(extension, {})
        form.is_valid()
    return MappingProxyType(dict(form.cleaned_data))


def store_settings(form: forms.Form) -> dict[str, Any]:
    """The values of a valid form as they are stored: plain JSON, rows of the database by their keys."""
    values = {name: field.prepare_value(form.cleaned_data[name]) for name, field in form.fields.items()}
    stored: dict[str, Any] = json.loads(json.dumps(values, cls=DjangoJSONEncoder))
    return stored
