"""Statistics of returns: intervals, tests by betting, tails, non-inferiority. No torch."""
