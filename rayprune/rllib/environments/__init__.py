"""Environments: made, guarded, and wrapped so that every action space can be learned."""
