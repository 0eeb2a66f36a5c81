"""Counted bytes and products of Triton launches, against counts by hand."""

import torch

from benchmarks import triton_traffic
from benchmarks.launches import recorded_launches
from testing.shapes import preset_calls


def test_a_convolution_reads_its_input_and_weight_once_and_writes_its_result() -> None:
    x = torch.empty(2, 16, 8, 8, device="meta", dtype=torch.float16)
    weight, bias = torch.empty(32, 16, 3, 3, device="meta", dtype=torch.float16), torch.empty(32, device="meta")
    (one,) = recorded_launches("conv2d_bias_act", [x, None, weight, None, bias, [2, 2], [1, 1], [1, 1], "silu"])
    assert triton_traffic.moved_bytes(one) == 2 * 2048 + 2 * 4608 + 4 * 32 + 2 * 2 * 32 * 16


def test_an_mlp_reads_and_writes_its_tokens() -> None:
    call = next(c for c in preset_calls("xx_small", 4, 256, torch.float16) if c.op == "mobilevit_transformer")
    mlp = next(one for one in recorded_launches(call.op, call.arguments) if one.kernel.fn.__name__ == "norm_mlp_kernel")
    rows, width, hidden = mlp.shape
    weights = 2 * 2 * width * hidden + 4 * (3 * width + hidden)  # float16 weights, float32 norms and biases
    assert (rows, width) == (4 * 32 * 32, 64)
    assert triton_traffic.moved_bytes(mlp) == 2 * 2 * rows * width + weights


def test_the_table_has_a_line_for_each_operator_and_their_sum() -> None:
    lines = triton_traffic.table("xx_small", 1, 3.0, 395.0).splitlines()[2:]
    rows = {line.split("|")[1].strip(): [float(v) for v in line.split("|")[2:-1]] for line in lines}
    assert list(rows)[-1] == "`all`"
    assert rows["`all`"][0] == sum(values[0] for name, values in rows.items() if name != "`all`")
