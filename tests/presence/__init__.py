"""Tests of the stores of presence."""
