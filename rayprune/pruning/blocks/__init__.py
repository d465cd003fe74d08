"""Fields of the config that choose no component: what they may say, and beside which others."""
