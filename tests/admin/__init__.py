"""Tests of the Django admin, with Django's test client."""
