"""One training run: its loop, its rows, its summary, and where it starts from."""
