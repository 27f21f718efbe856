"""Channel layers without Redis: on PostgreSQL, and within one machine.

They implement the interface of Channels and know nothing of rooms; ``CHANNEL_LAYERS`` names them by their
dotted paths. ``base.py`` is their common part.
"""
