#!/usr/bin/env python
"""The project's command line: `python manage.py <command>`."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line


def main() -> None:
    """Run one management command with the project's settings."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "roomsite.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
