"""Settings of the servers under test: the example site with faults and variants.

ROOMS_CHAOS_FAULTS    the file with the faults of the channel layer; see layers.py
ROOMS_CHAOS_VARIANT   the promise that this server breaks; see variants.py. Default: none
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

# All messages are kept, so that the checker can read them. The limit of a recovery stays.
ROOMS = {**ROOMS, "HISTORY_SIZE": 10_000_000}
