"""System checks of settings, channel layers and rows."""
