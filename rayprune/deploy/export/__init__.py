"""A policy to a proven file: made smaller, written, checked, quantised, verified."""
