"""Checkpoints: what RLlib saves, with the experiment and the run's progress beside it."""
