"""Tests of the presence stores."""
