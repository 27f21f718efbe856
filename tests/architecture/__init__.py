"""The layout of the code, held by tests."""
