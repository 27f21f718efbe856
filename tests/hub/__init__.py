"""Tests of the fan-out in one process: no database."""
