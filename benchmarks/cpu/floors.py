"""The least time that a call takes on a CPU: its analytic work, over what the machine was measured to do at best.

Bytes are those that have to move, each once: inputs, parameters, outputs; they take the time of a copy of that many.
Multiply-accumulates run at the rate of the best matrix product; a dense 3x3 convolution without stride needs but those
of Winograd's algorithm for 2x2 outputs (arXiv 1509.09308). An exponential is at least its polynomial, in
multiply-accumulates of the vector unit, which float32 products share. Products with the zeros of a padding count as
well, so that the floor of an operator with a wide one, aspp, is higher than it has to be.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks import floors
from benchmarks.cpu.measure import peak_for
from testing.shapes import OperatorCall

POLYNOMIAL = {"float32": 6, "bfloat16": 3}
"""Multiply-accumulates of an exponential that is as exact as the type: degrees of csrc/cpu/simd.h."""

WINOGRAD = 9 / 4
"""How many times fewer multiply-accumulates it has."""


def work_of(call: OperatorCall) -> dict[str, float]:
    """10⁶ bytes that a call moves at least, parameters too, and 10⁶ exponentials that it computes."""
    work = floors.work_of(call.op, call.named)
    moved = work.fused_bytes + work.weight_bytes
    return {"mb": float(f"{moved / 1e6:.4g}"), "mexp": float(f"{work.exponentials / 1e6:.4g}")}


def copy_rate_for(machine: Mapping[str, Any], megabytes: float) -> float:
    """10⁹ bytes a second at best for so many 10⁶ bytes: of all measured copies that are not much smaller.

    Small ones stay in a cache, and there a copy is faster.
    """
    rates = {float(size): rate for size, rate in machine["copy_gb_s_by_mb"].items()}
    return max((rate for size, rate in rates.items() if size >= megabytes / 2), default=rates[max(rates)])


def floor_ms(row: Mapping[str, Any], machine: Mapping[str, Any], threads: int) -> float:
    """Milliseconds of a row at least: for an image of a model, for a call of an operator."""
    calls = row["batch"] if row["kind"] == "model" else 1
    dtype = row["dtype"]
    moving = row["mb"] / copy_rate_for(machine, row["mb"] * calls)
    products = 1e3 * row["gmac"] / peak_for(machine, dtype, threads)
    if row.get("operator") == "conv2d_bias_act" and (row["shape"]["kernel"], row["shape"]["stride"]) == (3, 1):
        products /= WINOGRAD
    vector = row.get("mexp", 0.0) * POLYNOMIAL[dtype] / machine["peak_gmac_s"]["float32"][str(threads)]
    computing = products + vector if dtype == "float32" else max(products, vector)
    return max(moving, computing)
