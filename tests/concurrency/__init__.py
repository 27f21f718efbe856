"""Tests of `rooms.concurrency`."""
