"""A Django project that uses Rooms: settings, URLs and example extensions.

As an example, it imports only public names of `rooms`.
"""
