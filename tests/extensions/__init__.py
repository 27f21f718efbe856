"""Tests of `rooms.extensions`."""
