"""Wire formats: types, commands, events, errors, native codec; no IO, no Django."""
