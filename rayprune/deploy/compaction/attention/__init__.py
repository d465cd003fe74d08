"""Attention layers as one step of a forward, and what is left of their heads."""
