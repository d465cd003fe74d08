"""Replay as arrays: RLlib's buffers with the same draws, sampled as columns instead of episodes."""
