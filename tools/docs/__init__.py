"""The documentation: reference pages generated from the code, and the site that is built of all."""
