"""From a budget to a proven file: what is feasible, what is trained, what is handed over."""
