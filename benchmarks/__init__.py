"""Benchmarks: how fast Rooms is, beside its peers."""
