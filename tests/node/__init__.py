"""Tests of the engine, driven without sockets."""
