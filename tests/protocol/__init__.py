"""Tests of the wire formats: no IO, no database."""
