"""MobileViT on the CPU: this package against the other ways to run it, and operator by operator.

`python -m benchmarks.cpu --help`; `python -m benchmarks.cpu.table` makes the README's table from the results.
"""
