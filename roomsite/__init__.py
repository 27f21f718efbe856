"""A Django project that uses Rooms: settings, addresses and example extensions.

It is an example of use, so it imports only public names of `rooms`.
"""
