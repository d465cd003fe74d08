"""Layers with masks: how they are made, unmade, resized, and held at the identity."""
