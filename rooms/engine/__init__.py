"""The group operations, and the parts that carry them out. ``engine.py`` is where to begin."""
