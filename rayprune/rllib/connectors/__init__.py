"""Observations and rewards on their way to the network: encoded, normalised."""
