"""Stable-Baselines3: its zips and VecNormalize files read without running what they hold."""
