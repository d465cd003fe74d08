"""From a captured graph of torch operators to a program in C: one file a kind of operator."""
