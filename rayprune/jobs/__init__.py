"""Runs as jobs on a Ray cluster, submitted from a machine outside it."""
