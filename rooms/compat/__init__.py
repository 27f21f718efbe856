"""The protocols of the four original servers; only ``routing.py`` imports these."""
