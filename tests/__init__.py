"""The suite. It mirrors `rooms/` file by file; `tests/integration/` has the tests against real servers."""
