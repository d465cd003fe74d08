"""Features of the pruning Learner, one file each."""
