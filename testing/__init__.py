"""Tools that tests and benchmarks share: samples, shapes, the peers to compare with, the rule for errors."""
