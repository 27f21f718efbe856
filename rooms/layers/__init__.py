"""Channel layers that need no Redis: on PostgreSQL, and between the processes of one machine.

They are layers as Channels means them and know nothing of rooms; ``CHANNEL_LAYERS`` names them by their
dotted paths. ``base.py`` is what they have in common.
"""
