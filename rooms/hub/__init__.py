"""The fan-out of one process: connections, rooms and the order of their events.

The package imports no Django.
"""
