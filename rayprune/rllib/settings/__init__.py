"""What travels to the Learners in ``learner_config_dict``."""
