"""The settings of the servers under test: those of the site, with what chaos needs.

ROOMS_CHAOS_FAULTS    the file that says what the channel layer does wrong; see layers.py
ROOMS_CHAOS_VARIANT   the promise that this server breaks; see variants.py. Absent: none
"""

from __future__ import annotations

import os

from roomsite.settings import *  # noqa: F403 (all of them)
from roomsite.settings import CHANNEL_LAYERS, INSTALLED_APPS, ROOMS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.chaos.variants.Variants"]

if faults := os.environ.get("ROOMS_CHAOS_FAULTS"):
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "tests.chaos.layers.UnreliableLayer",
            "CONFIG": {"layer": CHANNEL_LAYERS["default"], "faults": faults},
        }
    }

# Everything is kept, so that the whole log can be read at the end. What a recovery hands over stays as it is.
ROOMS = {**ROOMS, "HISTORY_SIZE": 10_000_000}
