"""Calls to Ray actors: Learners, EnvRunners, and what is done when one is lost."""
