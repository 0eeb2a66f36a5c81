"""MobileViT on the CPU: this package against the other ways to run it, and operator by operator.

`python -m benchmarks run models|ops` measures; `python -m benchmarks report` makes tables of the results.
"""
