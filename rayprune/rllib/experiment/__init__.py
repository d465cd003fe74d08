"""From a YAML experiment to RLlib's AlgorithmConfig, with every fault found first."""
