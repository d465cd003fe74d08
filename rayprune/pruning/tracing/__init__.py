"""Facts about a module that are found by running it: its heads, and which units reach them."""
