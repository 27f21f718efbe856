"""The oracle: many clients, servers that fail, and a check of everything they recorded."""
