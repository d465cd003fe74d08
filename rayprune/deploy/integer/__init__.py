"""Policies in whole numbers: their arithmetic in NumPy, and how a quantised policy becomes one."""
