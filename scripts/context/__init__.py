"""What the long-context benchmarks share."""
