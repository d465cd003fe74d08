"""What importance scores know beyond the weight: gradients, activations, samples."""
