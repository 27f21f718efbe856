"""The system checks: of the settings, of the channel layer, and of the rows of the database."""
