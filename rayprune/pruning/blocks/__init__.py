"""Blocks of the config that are no choice of their own: their defaults and their faults."""
