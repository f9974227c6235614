"""Checks of an installation: oracles through every kind of dataset and every protocol."""
