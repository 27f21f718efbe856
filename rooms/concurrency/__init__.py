"""Building blocks for concurrent work: batching, threads, locks, timeouts, rate limits."""
