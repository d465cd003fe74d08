"""Training by replay: columns straight to the Learner, weights and metrics when they are needed."""
