"""What an action costs: latency and peak memory."""
