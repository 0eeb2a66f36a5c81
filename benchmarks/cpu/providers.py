"""How the providers of the registry run a model on a CPU: of a case, each makes a call that returns the logits.

A provider that is not installed or does not work is a row with its reason. Every library gets the same number of
threads; other options stay at their defaults, as users have them.
"""

import math
import re
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import builders
from benchmarks.builders import Forward
from benchmarks.cases import CHECKED_IMAGES, Case, relative_error
from benchmarks.networks import Logits, top1_agreement
from benchmarks.registry import Provider

Call = Callable[[], Any]

WRONG = {"float32": 1e-3, "bfloat16": 0.3}
"""Relative error of the logits from which on a result is wrong, and a time for it means nothing."""

LONGEST_CALL = 5.0
"""Seconds that a call may take to be measured: bfloat16 without instructions for it would take the run's whole time."""


class Unavailable(Exception):
    """A provider cannot run a case; the message is the reason."""


class Prepared(NamedTuple):
    """A provider ready to be measured, or the reason why it is not."""

    call: Call | None
    error: float | None
    reason: str | None
    top1_agreement: float | None = None


def prepare(provider: Provider, case: Case) -> Prepared:
    """Build a provider's call, run it once and compare its logits with the float64 ones."""
    try:
        call = BUILDERS[provider.library](case, provider)
        logits, seconds = _timed(call)
        if seconds > LONGEST_CALL:  # maybe it was compiled in it
            logits, seconds = _timed(call)
        exact = case.exact(provider.network(case.size))
        if logits.shape != (case.batch, *exact.shape[1:]):
            raise Unavailable(f"expected logits of shape {(case.batch, *exact.shape[1:])}, got {tuple(logits.shape)}")
        logits = logits[:CHECKED_IMAGES]
    except Unavailable as reason:
        return Prepared(None, None, str(reason))
    except ImportError as error:
        return Prepared(None, None, f"not installed: {_first_line(error)}")
    except Exception as error:  # whatever a peer does wrong is its row's reason, not the end of the comparison
        return Prepared(None, None, f"{type(error).__name__}: {_first_line(error)}")
    error_of_logits, agreement = relative_error(logits, exact), top1_agreement(logits, exact)
    allowed = WRONG[case.dtype_name]
    if not error_of_logits <= allowed:
        finite = error_of_logits if math.isfinite(error_of_logits) else None
        return Prepared(None, finite, f"wrong: relative error {error_of_logits:.1e}, allowed {allowed:.0e}", agreement)
    if seconds > LONGEST_CALL:
        return Prepared(None, error_of_logits, f"a call takes {seconds:.0f} s", agreement)
    return Prepared(call, error_of_logits, None, agreement)


def _timed(call: Call) -> tuple[Tensor, float]:
    """The logits, and how many seconds they took."""
    start = time.perf_counter()
    logits = call()
    return torch.as_tensor(np.asarray(_numpy(logits))), time.perf_counter() - start


def _numpy(logits: Any) -> Any:
    return logits.double().numpy() if isinstance(logits, Tensor) else logits


def _first_line(error: Exception) -> str:
    """The beginning of a message, without the folders of this machine: results are committed."""
    lines = str(error).strip().splitlines() or [""]
    return re.sub(r"(/[\w.+-]+)+/", "", " ".join(lines[0].split()))[:200]


def _call_of(build: Callable[[Case, Provider], Forward]) -> Callable[[Case, Provider], Call]:
    """A function that makes a call over a case's images, of one that makes a forward."""

    def bound(case: Case, provider: Provider) -> Call:
        forward, (images,) = build(case, provider), case.images(provider.channels_last)

        def call() -> Tensor:
            with torch.inference_mode():
                return forward(images)

        return call

    return bound


def _exported(case: Case, provider: Provider) -> nn.Module:
    return Logits(case.networks.get(provider.network(case.size))).eval()


def onnxruntime(case: Case, provider: Provider) -> Call:
    """ONNX Runtime on a model of torch.onnx.export."""
    if case.dtype != torch.float32:
        raise Unavailable(f"no {case.dtype_name} kernels for the CPU")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(_exported(case, provider), (case.pool[0],), path, dynamo=True, verbose=False)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: case.pool[0].numpy()}
    return lambda: session.run(None, inputs)[0]


def openvino(case: Case, provider: Provider) -> Call:
    """OpenVINO on the PyTorch model, computing in the case's type."""
    return _openvino(case, provider, {torch.float32: "f32", torch.bfloat16: "bf16"}[case.dtype])


def openvino_float32(case: Case, provider: Provider) -> Call:
    """OpenVINO in float32 on a bfloat16 case: its best where the processor has no bfloat16 instructions."""
    return _openvino(case, provider, "f32")


def _openvino(case: Case, provider: Provider, precision: str) -> Call:
    import openvino as ov

    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        # It would take the hint all the same, and run its reference implementation: minutes for every image.
        raise Unavailable("it needs a processor with bfloat16 instructions (AVX512-BF16 or AMX)")
    images = case.pool[0].float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(_exported(case, provider), example_input=images)
    model.reshape(list(images.shape))
    settings = {
        "INFERENCE_NUM_THREADS": case.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled_model, pixels = core.compile_model(model, "CPU", settings), images.numpy()
    return lambda: compiled_model(pixels)[0]


BUILDERS: dict[str, Callable[[Case, Provider], Call]] = {
    **{name: _call_of(build) for name, build in builders.BUILDERS.items()},
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "openvino_float32": openvino_float32,
}
"""Functions that make a provider's call, by its library."""
