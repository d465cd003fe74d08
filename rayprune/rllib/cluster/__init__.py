"""Joining a Ray cluster, and the resources that are asked of it."""
