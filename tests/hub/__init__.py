"""Tests of the fan-out of one process: no database."""
