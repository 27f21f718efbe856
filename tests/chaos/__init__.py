"""The oracle: many clients, servers that die, and a judge of what they all remember."""
