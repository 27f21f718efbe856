"""Tests of the Django admin, through Django's own test client."""
