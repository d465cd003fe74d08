"""Small and fast for real: what comes out of pruning, made to run without Ray. Pure torch."""
