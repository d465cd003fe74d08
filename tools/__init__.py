"""What works on the repository itself, and is in no wheel."""
