"""Figures of a network: parameters, FLOPs, dead and dormant units, ITOP, what no mask reaches."""
