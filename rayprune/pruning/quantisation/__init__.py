"""Quantisation-aware training: policies that learn with weights and activations of few bits."""
