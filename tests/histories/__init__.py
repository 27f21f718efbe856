"""Tests of the stores of messages."""
