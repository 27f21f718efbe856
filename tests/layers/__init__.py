"""Tests of the channel layers without a broker."""
