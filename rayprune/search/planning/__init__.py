"""What a sweep takes, before it runs: placement on nodes, calibration, forecast."""
