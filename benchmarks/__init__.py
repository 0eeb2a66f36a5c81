"""Measurements. `python -m pytest benchmarks` runs the microbenchmarks."""
