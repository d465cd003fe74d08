"""An RLlib policy as one plain torch module that `rayprune.deploy` can write to a file."""
