"""Penalties that grow sparsity while training: L1 and group lasso, as proximal steps."""
