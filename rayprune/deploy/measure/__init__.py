"""What an action costs: latency, peak memory and energy."""
