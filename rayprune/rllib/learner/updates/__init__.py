"""The Learner's update without what RLlib does beside the arithmetic: the same numbers, sooner."""
