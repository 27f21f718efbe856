"""The example site's settings without Daphne.

Daphne replaces ``runserver`` and imports Twisted, which the tests in one process do not need.
"""

from __future__ import annotations

from roomsite.settings import *  # noqa: F403
from roomsite.settings import INSTALLED_APPS

INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "daphne"]
