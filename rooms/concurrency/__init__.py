"""Building blocks: batching, threads, locks, timeouts, rate limits."""
