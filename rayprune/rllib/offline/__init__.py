"""Recorded data: read once, as whole episodes, and drawn as minibatches."""
