"""The admin of applications."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from rooms.admin.delete_summary import DeleteSummaryAdmin
from rooms.admin.extension_settings import ExtensionAdmin, ExtensionForm
from rooms.conf import PROTOCOL_NAMES, get_settings
from rooms.models import Application, Ban, Message, Mute, Room, StateMessage


class ApplicationForm(ExtensionForm):
    """The form of an application; blank limits show the defaults of the site."""

    protocols = forms.MultipleChoiceField(
        label=_("Protocols"),
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text=_("Allowed protocols, of those that the site allows; none chosen: all of them."),
    )

    inherited = (
        *ExtensionForm.inherited,
        *("max_connections_per_address", "logins_per_minute"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: dict[str, Any] = self.fields
        fields["protocols"].choices = [(name, _protocol_name(name)) for name in PROTOCOL_NAMES]
        # A user with the view permission only has just the fields declared above.
        if "max_message_bytes" in fields:
            fields["max_message_bytes"].help_text = _("Blank: the maximum of the client's protocol.")

    def inherit(self, name: str) -> Any:
        return getattr(get_settings(), name)

    def clean_protocols(self) -> list[str]:
        """Validate that clients can connect. Raises ValidationError."""
        chosen: list[str] = self.cleaned_data["protocols"]
        allowed = get_settings().protocols
        if chosen and not set(chosen) & set(allowed):
            raise ValidationError(
                gettext("The settings of this site allow none of the chosen protocols, only: %s.")
                % ", ".join(allowed)
            )
        return chosen


class ProtocolFilter(admin.SimpleListFilter):
    """Filters by a protocol that an application allows."""

    title = _("protocol")
    parameter_name = "protocol"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, _protocol_name(name)) for name in PROTOCOL_NAMES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Application]) -> QuerySet[Application]:
        protocol = self.value()
        if protocol is None:
            return queryset
        # Not every database can search a JSON list.
        chosen = queryset.values_list("pk", "protocols")
        return queryset.filter(
            pk__in=[pk for pk, protocols in chosen if not protocols or protocol in protocols]
        )


@admin.register(Application)
class ApplicationAdmin(DeleteSummaryAdmin, ExtensionAdmin):
    """The list shows the number of rooms."""

    form = ApplicationForm
    # The columns that fit beside the filters.
    list_display = ("name", "enabled", "entry", "room_count", "extension")
    list_filter = ("enabled", "entry", ProtocolFilter, "rooms_on_demand", "history", "extension")
    search_fields = ("name", "title")
    actions = ("enable", "disable")
    readonly_fields = ("created",)
    fieldsets = (
        (None, {"fields": ("name", "title", "enabled", "created")}),
        (_("Access"), {"fields": ("entry", "group", "max_users", "protocols")}),
        (_("Rooms"), {"fields": ("rooms_on_demand", "rooms_stay", "max_rooms")}),
        (_("History"), {"fields": ("history", "history_size", "history_ttl")}),
        (
            _("Limits"),
            {
                "fields": (
                    *("max_message_bytes", "request_rate", "request_burst", "leave_grace"),
                    *("logins_per_minute", "max_connections_per_address"),
                ),
                "description": _("A blank field uses the setting of this site, which is shown in it."),
            },
        ),
        (_("Extension"), {"fields": ("extension",)}),
    )
    deleted_with: ClassVar = [
        (Room, "application"),
        (Message, "room__application"),
        (StateMessage, "room__application"),
        (Ban, "application"),
        (Mute, "application"),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Application]:
        rooms = Room.objects.filter(application=OuterRef("pk")).order_by().values("application")
        count = Subquery(rooms.annotate(count=Count("pk")).values("count"))
        applications: QuerySet[Application] = super().get_queryset(request)
        return applications.annotate(count_of_rooms=Coalesce(count, 0))

    # A name other than the relation's, by which the list would be sorted.
    @admin.display(description=_("rooms"), ordering="count_of_rooms")
    def room_count(self, application: Any) -> SafeString:
        address = reverse(f"{self.admin_site.name}:rooms_room_changelist")
        return format_html(
            '<a href="{}?application__id__exact={}">{}</a>',
            address,
            application.pk,
            application.count_of_rooms,
        )

    @admin.action(description=_("Enable selected %(verbose_name_plural)s"), permissions=["change"])
    def enable(self, request: HttpRequest, applications: QuerySet[Application]) -> None:
        self._set_enabled(request, applications.filter(enabled=False), True)

    @admin.action(description=_("Disable selected %(verbose_name_plural)s"), permissions=["change"])
    def disable(self, request: HttpRequest, applications: QuerySet[Application]) -> None:
        self._set_enabled(request, applications.filter(enabled=True), False)

    def _set_enabled(self, request: HttpRequest, applications: QuerySet[Application], enabled: bool) -> None:
        changed = list(applications)
        for application in changed:
            # One by one, because an update of the queryset sends no signals to open connections.
            application.enabled = enabled
            application.save(update_fields=["enabled"])
            self.log_change(request, application, [{"changed": {"fields": ["enabled"]}}])
        text = (
            ngettext("%d application was enabled.", "%d applications were enabled.", len(changed))
            if enabled
            else ngettext("%d application was disabled.", "%d applications were disabled.", len(changed))
        )
        self.message_user(request, text % len(changed), messages.SUCCESS)


def _protocol_name(name: str) -> str:
    """Label a protocol, with a mark where the site does not allow it."""
    return (
        name
        if name in get_settings().protocols
        else gettext("%s (not allowed by the settings of this site)") % name
    )
