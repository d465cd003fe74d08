"""Format ``c``: a policy as C99 without dependencies, for control loops and microcontrollers."""
