"""What each of torch's operators does with units and constants: one file a kind of operator."""
