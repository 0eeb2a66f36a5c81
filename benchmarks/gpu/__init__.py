"""Everything a machine with a GPU can tell of this package, in one command and a given time.

`python -m benchmarks session --help`. Only `device.py` touches `torch.cuda`; the rest runs, and is tested, without a
GPU.
"""
