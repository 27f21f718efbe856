"""The settings of the example site, with the extensions for tests."""

from __future__ import annotations

from roomsite.settings import *  # noqa: F403
from roomsite.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.site"]
