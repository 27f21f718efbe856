"""Formats times for lists."""

from __future__ import annotations

from datetime import datetime

from django.utils.formats import date_format
from django.utils.timezone import localtime


def short_time(time: datetime) -> str:
    """Format date and time in the site's short format and time zone."""
    return date_format(localtime(time), "SHORT_DATETIME_FORMAT")
