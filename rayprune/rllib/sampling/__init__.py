"""EnvRunners that sample into arrays: RLlib's episodes, made once a fragment."""
