"""The group operations and the components that execute them.

Begin to read at ``node.py``.
"""
