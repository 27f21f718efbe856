"""Tests of what a site writes extensions with."""
