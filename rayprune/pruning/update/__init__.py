"""One mask update, from its due time to what stays and what grows; decided, not yet applied."""
