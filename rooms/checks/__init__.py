"""System checks of the settings, the channel layer and the database."""
