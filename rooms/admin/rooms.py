"""The admin of rooms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin import actions
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.core.exceptions import ValidationError
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from rooms.admin.delete_summary import DeleteSummaryAdmin
from rooms.admin.extension_settings import ExtensionAdmin, ExtensionForm
from rooms.admin.formatting import short_time
from rooms.admin.user_fields import UserFieldsAdmin
from rooms.conf import get_settings
from rooms.models import Ban, HistoryPolicy, Message, Mute, Room, StateMessage

PASSWORD_FIELDS = ("new_password", "remove_password")


class RoomForm(ExtensionForm):
    """The form of a room. Its password can be set and removed, not read."""

    new_password = forms.CharField(
        label=_("New password"),
        required=False,
        strip=False,
        max_length=128,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    remove_password = forms.BooleanField(label=_("Remove the password"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        has_password = bool(self.instance.password)
        self.fields["new_password"].help_text = (
            _("Blank: the password stays the same.") if has_password else _("The room has no password.")
        )
        self.fields["remove_password"].disabled = not has_password
        if "history" in self.fields:
            history: Any = self.fields["history"]
            history.choices = [("", _("Same as the application")), *HistoryPolicy.choices]

    def inherit(self, name: str) -> Any:
        if self.instance.application_id is None:
            return None
        value = getattr(self.instance.application, name)
        return getattr(get_settings(), name) if value is None else value

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.cleaned_data.get("new_password") and self.cleaned_data.get("remove_password"):
            self.add_error("remove_password", ValidationError(_("Choose either a new password or none.")))
        return cleaned

    def save(self, commit: bool = True) -> Any:
        if password := self.cleaned_data["new_password"]:
            self.instance.password = make_password(password)
        elif self.cleaned_data["remove_password"]:
            self.instance.password = ""
        if self.instance.owner_id is not None:
            # A room has one owner: the user replaces a guest.
            self.instance.guest_owner_id = self.instance.guest_owner_name = ""
        return super().save(commit)


@admin.action(permissions=["delete"], description=_("Close (delete) selected %(verbose_name_plural)s"))
def delete_selected(admin_of_rooms: Any, request: HttpRequest, rooms: QuerySet[Room]) -> Any:
    """Django's own action under another label: members see that the room is closed."""
    return actions.delete_selected(admin_of_rooms, request, rooms)


@admin.register(Room)
class RoomAdmin(DeleteSummaryAdmin, UserFieldsAdmin, ExtensionAdmin):
    """The list shows the number of messages."""

    form = RoomForm
    # Replaces the action of the same name.
    actions = (delete_selected,)
    # The columns that fit beside the filters.
    list_display = ("name", "application", "belongs_to", "message_count", "last_message")
    list_filter = (
        *("application", "mode", "listed", "persistent", "history", "extension"),
        ("password", admin.EmptyFieldListFilter),
        "created",
    )
    search_fields = (
        *("name", "title", "application__name", "application__title", "guest_owner_name"),
        f"owner__{get_user_model().USERNAME_FIELD}",
    )
    date_hierarchy = "created"
    autocomplete_fields = ("application",)
    raw_id_fields = ("owner",)
    readonly_fields = ("guest_owner_name", "created")
    fieldsets = (
        (None, {"fields": ("application", "name", "title", "created")}),
        (
            _("Members"),
            {"fields": ("mode", "owner", "guest_owner_name", "max_members", "listed", *PASSWORD_FIELDS)},
        ),
        (
            _("Lifetime and history"),
            {
                "fields": (
                    "persistent",
                    "closes_with_owner",
                    "history",
                    "history_size",
                    "history_ttl",
                    "leave_grace",
                )
            },
        ),
        (
            _("Limits"),
            {
                "fields": ("request_rate", "request_burst"),
                "description": _("A blank field uses the value of the application, which is shown in it."),
            },
        ),
        (_("Extension"), {"fields": ("extension",)}),
    )
    deleted_with: ClassVar = [
        (Message, "room"),
        (StateMessage, "room"),
        (Ban, "room"),
        (Mute, "room"),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Room]:
        messages = Message.objects.filter(room=OuterRef("pk"))
        count = messages.order_by().values("room").annotate(count=Count("pk")).values("count")
        rooms: QuerySet[Room] = super().get_queryset(request).select_related("application", "owner")
        return rooms.annotate(
            count_of_messages=Coalesce(Subquery(count), 0),
            time_of_last=Subquery(messages.order_by("-seq").values("time")[:1]),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # Members cannot be moved to another application.
        return self.readonly_fields if obj is None else ("application", *self.readonly_fields)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return fieldsets
        return [(title, {**options, "fields": _readable(options["fields"])}) for title, options in fieldsets]

    @admin.display(description=_("owner"), empty_value="-")
    def belongs_to(self, room: Room) -> str | None:
        return str(room.owner) if room.owner else room.guest_owner_name or None

    # A name other than the relation's, by which the list would be sorted.
    @admin.display(description=_("messages"), ordering="count_of_messages")
    def message_count(self, room: Any) -> SafeString:
        address = reverse(f"{self.admin_site.name}:rooms_message_changelist")
        return format_html('<a href="{}?room__id__exact={}">{}</a>', address, room.pk, room.count_of_messages)

    @admin.display(description=_("last message"), ordering="time_of_last", empty_value="-")
    def last_message(self, room: Any) -> str | None:
        return room.time_of_last and short_time(room.time_of_last)


def _readable(fields: Iterable[str]) -> list[str]:
    """Return the fields that can be read."""
    return [name for name in fields if name not in PASSWORD_FIELDS]
