"""Where a run is written down and followed."""
