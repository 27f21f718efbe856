"""Times in lists, which have little space."""

from __future__ import annotations

from datetime import datetime

from django.utils.formats import date_format
from django.utils.timezone import localtime


def short_time(time: datetime) -> str:
    """Date and time in the site's own short form and time zone."""
    return date_format(localtime(time), "SHORT_DATETIME_FORMAT")
