"""The example site's settings and one app more."""

from __future__ import annotations

from roomsite.settings import *  # noqa: F403
from roomsite.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.site"]
