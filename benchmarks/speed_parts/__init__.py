"""The works of training_speed.py, for RLlib and for Stable-Baselines3."""
