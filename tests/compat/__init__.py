"""Tests of `rooms.compat`."""
