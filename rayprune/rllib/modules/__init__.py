"""An RLModule as pruning sees it: its policy and value layers, heads, sensors, and sizes."""
