"""The choice of an extension, and its settings as fields of the same page.

The page shows the settings of the stored extension; those of a newly chosen one appear after saving.
The extension's own form validates the settings, here and when the node reads them
(``extensions/registry.py``).
"""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from rooms.extensions import Extension, registry

PREFIX = "settings"
# Options of a select element do not wrap.
MAX_TITLE_LENGTH = 70


class ExtensionForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of a model with an extension."""

    extension = forms.ChoiceField(
        label=_("Extension"),
        required=False,
        help_text=_(
            "Code of this site that handles events. "
            "The settings of a newly chosen extension appear after saving."
        ),
    )

    # Blank fields show the inherited value as a placeholder.
    inherited: ClassVar[tuple[str, ...]] = (
        *("history_size", "history_ttl", "leave_grace", "request_rate", "request_burst"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stored: str = self.instance.extension
        self.settings: forms.Form | None = None
        self._offer_extensions()
        if extension := registry.find(self.stored):
            self._add_settings(extension)
        for name in self.inherited:
            if name in self.fields and (value := self.inherit(name)) is not None:
                self.fields[name].widget.attrs["placeholder"] = value

    def inherit(self, name: str) -> Any:
        """Return the value that a blank field inherits; None where there is none to show."""
        raise NotImplementedError

    def _offer_extensions(self) -> None:
        field: Any = self.fields["extension"]
        field.choices = [("", "---------"), *((name, _title(name)) for name in registry.names())]
        if self.stored and registry.find(self.stored) is None:
            missing = gettext("%s (missing)") % self.stored
            field.choices = [*field.choices, (self.stored, missing)]
            field.help_text = format_html(
                '<strong class="errornote">{}</strong>{}',
                gettext(
                    "This site has no extension %s, so users cannot join. "
                    "Install it again, with the settings that are kept, or choose another."
                )
                % self.stored,
                field.help_text,
            )

    def _add_settings(self, extension: type[Extension]) -> None:
        stored = registry.settings_form(extension, self.instance.extension_settings)
        stored.is_valid()
        # Cleaned values where valid: a date, and not the text that is stored.
        values = {**stored.data, **stored.cleaned_data}
        self.settings = extension.Settings(data=self.data if self.is_bound else None, prefix=PREFIX)
        for name, field in self.settings.fields.items():
            field.label = self.settings[name].label
            self.fields[f"{PREFIX}-{name}"] = field
            self.initial[f"{PREFIX}-{name}"] = values[name]

    def clean(self) -> dict[str, Any] | None:
        """Validate the settings by their own form, if the extension is unchanged."""
        cleaned = super().clean()
        for name in [name for name in self.errors if name.startswith(f"{PREFIX}-")]:
            del self.errors[name]
        if self.settings is not None and self.cleaned_data.get("extension") == self.stored:
            for name, errors in self.settings.errors.as_data().items():
                where = None if name == NON_FIELD_ERRORS else f"{PREFIX}-{name}"
                self.add_error(where, ValidationError(errors))
        return cleaned

    def full_clean(self) -> None:
        super().full_clean()
        if self.errors:
            # The page is shown again, with the settings of the stored extension.
            self.instance.extension = self.stored

    def save(self, commit: bool = True) -> Any:
        if self.cleaned_data["extension"] != self.stored:
            self.instance.extension_settings = {}
        elif self.settings is not None:
            self.instance.extension_settings = registry.store_settings(self.settings)
        return super().save(commit)


class ExtensionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The admin of a model with an extension."""

    form = ExtensionForm

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        fields = kwargs.get("fields") or flatten_fieldsets(self.get_fieldsets(request, obj))
        # The settings are fields of the form's instance and not of its class.
        kwargs["fields"] = [name for name in fields if not name.startswith(f"{PREFIX}-")]
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        fieldsets: list[Any] = list(super().get_fieldsets(request, obj))
        if obj is None or not obj.extension:
            return fieldsets
        title = gettext("Settings of %s") % obj.extension
        extension = registry.find(obj.extension)
        if not self.has_change_permission(request, obj):
            fieldsets.append((title, {"fields": ["extension_settings"]}))
        elif extension is not None and (names := list(extension.Settings().fields)):
            fieldsets.append((title, {"fields": [f"{PREFIX}-{name}" for name in names]}))
        return fieldsets

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        extension = registry.find(obj.extension)
        if "extension" in form.changed_data and extension is not None and extension.Settings().fields:
            # Return to this page, which now shows the settings.
            data = request.POST.copy()
            data["_continue"] = "1"
            request.POST = data  # type: ignore[assignment]


def _title(name: str) -> str:
    """Label an extension with its name and the first line of its docstring."""
    extension = registry.find(name)
    summary = (extension.__doc__ or "").strip().partition("\n")[0] if extension else ""
    return Truncator(f"{name} – {summary}").chars(MAX_TITLE_LENGTH) if summary else name
