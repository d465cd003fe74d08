"""The Learner that prunes: masks, gradients, moments, target networks after each update."""
