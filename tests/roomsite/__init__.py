"""Tests of the Django project in `roomsite/`."""
