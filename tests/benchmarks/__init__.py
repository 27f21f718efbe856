"""What the benchmarks say, where that can be told without measuring."""
