"""What a config says of pruning and of other code, and what travels to the Learners."""
