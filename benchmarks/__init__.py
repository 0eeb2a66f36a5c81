"""Measurements. `python -m benchmarks run` compares models and operators, and `python -m benchmarks report` shows it;
`python -m pytest benchmarks` runs the microbenchmarks.
"""
