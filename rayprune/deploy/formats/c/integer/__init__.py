"""Whole numbers in C: sums of 8-bit weights, rescaled without floats."""
