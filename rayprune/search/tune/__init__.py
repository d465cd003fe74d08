"""Ray Tune's side of a sweep: its callbacks, its state, its storage."""
