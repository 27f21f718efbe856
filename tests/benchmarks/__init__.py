"""What the benchmarks report, as far as a test can check it without measuring."""
