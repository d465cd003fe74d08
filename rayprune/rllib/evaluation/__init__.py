"""Policies played and compared: returns on given seeds, closeness to the dense policy."""
