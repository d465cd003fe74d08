"""A whole policy as one module: observation in, action out; as a file, opened and run."""
