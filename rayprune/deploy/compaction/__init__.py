"""Exact compaction: dead units go, and what is left computes the same."""
