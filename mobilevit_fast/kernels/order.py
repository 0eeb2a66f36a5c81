"""The order in which backends are asked on a GPU: by what was measured on such a chip, for weights of such sizes.

``python -m benchmarks order --update`` writes the table, ``order.json``: microseconds of each backend, by compute
capability and operator, with the type and the sizes of the weights, which is all that is known when they are packed.
It decides between kernels. Plain PyTorch comes last, whatever it takes: it was measured for many images, and for a few
it is many launches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

FILE = Path(__file__).with_name("order.json")
USUAL = ("cuda", "triton", "reference")
"""Where nothing was measured."""
NOISE = 1.02
"""Ratio of two times from which on they differ."""

Orders = dict[tuple[tuple[int, int], str, torch.dtype, tuple[int, ...]], tuple[str, ...]]


def orders(table: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> Orders:
    """Backends, the faster kernel first, by compute capability, operator, type and sizes."""
    found: Orders = {}
    for capability, operators in table.items():
        major, minor = map(int, capability.split("."))
        for op, rows in operators.items():
            for row in rows:
                times, sizes = row["microseconds"], tuple(row["sizes"].values())
                first, second, last = USUAL
                if times.get(second, float("inf")) * NOISE < times.get(first, float("inf")):
                    first, second = second, first
                found[(major, minor), op, getattr(torch, row["dtype"]), sizes] = (first, second, last)
    return found


ORDERS = orders(json.loads(FILE.read_text(encoding="utf-8"))["chips"])


def order_on_gpu(
    device: torch.device, op: str, dtype: torch.dtype, sizes: Callable[[], Iterable[int]]
) -> tuple[str, ...]:
    """The backends of an operator on a GPU, best first.

    In a trace it is the usual order: sizes may be symbols there, and a table would bind the graph to their values.

    Args:
        device: of the weights.
        op: the operator's name.
        dtype: in which it computes.
        sizes: gives those of its weights, in the order of their declaration; not asked in a trace.
    """
    is_nvidia = device.type == "cuda" and torch.version.cuda and torch.cuda.is_available()
    if is_nvidia and not torch.compiler.is_compiling():
        properties = torch.cuda.get_device_properties(device)
        return ORDERS.get(((properties.major, properties.minor), op, dtype, tuple(sizes())), USUAL)
    return USUAL
