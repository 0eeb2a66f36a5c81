"""The order in which backends are asked on a GPU: by what was measured on such a chip, for weights of such sizes.

``python -m benchmarks order --update`` writes the table, ``order.json``: microseconds of each backend, by compute
capability and operator, with the type and the sizes of the weights, which is all that is known when they are packed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FILE = Path(__file__).with_name("order.json")
USUAL = ("cuda", "triton", "reference")
"""Where nothing was measured."""

Orders = dict[tuple[tuple[int, int], str, torch.dtype, tuple[int, ...]], tuple[str, ...]]


def orders(table: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> Orders:
    """Backends, the fastest first, by compute capability, operator, type and sizes; those not measured come last."""
    found: Orders = {}
    for capability, operators in table.items():
        major, minor = map(int, capability.split("."))
        for op, rows in operators.items():
            for row in rows:
                times, sizes = row["microseconds"], tuple(row["sizes"].values())
                order = tuple(sorted(USUAL, key=lambda backend: times.get(backend, float("inf"))))
                found[(major, minor), op, getattr(torch, row["dtype"]), sizes] = order
    return found


ORDERS = orders(json.loads(FILE.read_text(encoding="utf-8"))["chips"])


def order_on_gpu(device: torch.device, op: str, dtype: torch.dtype, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The backends of an operator on a GPU, best first.

    Traced by torch.compile, which evaluates what it knows of devices.

    Args:
        device: of the weights.
        op: the operator's name.
        dtype: in which it computes.
        sizes: of its weights, in the order of their declaration.
    """
    if device.type == "cuda" and torch.version.cuda and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(device)
        return ORDERS.get(((properties.major, properties.minor), op, dtype, tuple(sizes.values())), USUAL)
    return USUAL
