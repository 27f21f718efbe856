"""The protocols of the four original servers, and multiplexing. Only ``routing.py`` imports this package."""
