"""The group operations, and the parts that carry them out. ``node.py`` is where to begin."""
