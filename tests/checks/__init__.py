"""Tests of `rooms.checks`."""
