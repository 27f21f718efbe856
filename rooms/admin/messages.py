"""The admin of messages and state, which can be viewed and deleted, not edited."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from rooms.admin.formatting import short_time
from rooms.models import Message, StateMessage

EXCERPT = 80


class StoredMessageAdminBase(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shared by messages and state."""

    # No date hierarchy and no second count: the messages of all rooms have no index by time.
    show_full_result_count = False
    search_fields = ("event", "data", "sender_name", "room__name", "room__title")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # The list loads only the beginning of long messages.
        rows: QuerySet[Any] = super().get_queryset(request).select_related("room__application").defer("data")
        shortened: QuerySet[Any] = rows.annotate(beginning=Left("data", EXCERPT + 1))
        return shortened

    @admin.display(description=_("time"), ordering="time")
    def when(self, message: Any) -> str:
        return short_time(message.time)

    @admin.display(description=_("data"))
    def excerpt(self, message: Any) -> str:
        return Truncator(message.beginning).chars(EXCERPT)

    @admin.display(description=_("sender"), ordering="sender_name")
    def sender(self, message: Any) -> str:
        if not message.sender_name:
            return gettext("the server")
        return (
            gettext("%s (guest)") % message.sender_name if message.sender_guest else str(message.sender_name)
        )


@admin.register(Message)
class MessageAdmin(StoredMessageAdminBase):
    """Messages of the history in the database."""

    list_display = ("when", "room", "sender", "event", "excerpt")
    list_filter = ("room__application", "time", "state", "sender_guest")
    fields = ("room", "seq", "time", "sender", "sender_id", "event", "data", "state", "key")
    readonly_fields = ("sender",)


@admin.register(StateMessage)
class StateMessageAdmin(StoredMessageAdminBase):
    """State that is stored in the database."""

    list_display = ("event", "room", "excerpt", "sender", "when")
    list_filter = ("room__application", "time", "sender_guest")
    fields = ("room", "event", "data", "time", "sender", "sender_id", "seq")
    readonly_fields = ("sender",)
