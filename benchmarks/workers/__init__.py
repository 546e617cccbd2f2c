"""What benchmarks start in several processes."""
