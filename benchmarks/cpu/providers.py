"""The ways to run a MobileViT that are compared. Each makes, of a case, a call that returns the logits.

A provider that is not installed or does not work is a row with its reason. Every library gets the same number of
threads; other options stay at their defaults, as users have them.
"""

import math
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from benchmarks.cpu.models import DTYPES, Case, relative_error

Call = Callable[[], Any]

WRONG = {"float32": 1e-3, "bfloat16": 0.3}
"""Relative error of the logits from which on a result is wrong, and a time for it means nothing."""


class Unavailable(Exception):
    """A provider cannot run a case; the message is the reason."""


@dataclass(frozen=True)
class Provider:
    """A way to run the model.

    Attributes:
        name: in results and on the command line.
        label: in tables.
        build: takes a case, returns a call without arguments that gives logits (N, K), a tensor or an array.
        dtypes: types of the cases it is measured in.
    """

    name: str
    label: str
    build: Callable[[Case], Call]
    dtypes: tuple[str, ...] = tuple(DTYPES)


class Prepared(NamedTuple):
    """A provider ready to be measured, or the reason why it is not."""

    call: Call | None
    error: float | None
    reason: str | None


def prepare(provider: Provider, case: Case) -> Prepared:
    """Build a provider's call, run it once and compare its logits with the float64 ones."""
    try:
        call = provider.build(case)
        logits = torch.as_tensor(np.asarray(_numpy(call())))
        if logits.shape != case.exact.shape:
            raise Unavailable(f"expected logits of shape {tuple(case.exact.shape)}, got {tuple(logits.shape)}")
    except Unavailable as reason:
        return Prepared(None, None, str(reason))
    except ImportError as error:
        return Prepared(None, None, f"not installed: {_first_line(error)}")
    except Exception as error:  # whatever a peer does wrong is its row's reason, not the end of the comparison
        return Prepared(None, None, f"{type(error).__name__}: {_first_line(error)}")
    error_of_logits = relative_error(logits, case.exact)
    allowed = WRONG[case.dtype_name]
    if not error_of_logits <= allowed:
        finite = error_of_logits if math.isfinite(error_of_logits) else None
        return Prepared(None, finite, f"wrong: relative error {error_of_logits:.1e}, allowed {allowed:.0e}")
    return Prepared(call, error_of_logits, None)


def _numpy(logits: Any) -> Any:
    return logits.double().numpy() if isinstance(logits, Tensor) else logits


def _first_line(error: Exception) -> str:
    """The beginning of a message, without the folders of this machine: results are committed."""
    lines = str(error).strip().splitlines() or [""]
    return re.sub(r"(/[\w.+-]+)+/", "", " ".join(lines[0].split()))[:200]


def _torch_call(model: Callable[..., Any], images: Tensor) -> Call:
    def call() -> Tensor:
        with torch.inference_mode():
            return model(images).logits

    return call


def ours(case: Case) -> Call:
    """This package, with images as an image processor makes them."""
    model = mvf.accelerate(case.copy_of_model(), strict=True)
    return _torch_call(model, case.images.to(case.dtype))


def ours_channels_last(case: Case) -> Call:
    """This package, with images in channels_last."""
    model = mvf.accelerate(case.copy_of_model(), strict=True)
    return _torch_call(model, case.images.to(case.dtype, memory_format=torch.channels_last))


def eager(case: Case) -> Call:
    """transformers as it comes."""
    return _torch_call(case.copy_of_model(), case.images.to(case.dtype))


def eager_channels_last(case: Case) -> Call:
    """transformers with model and images in channels_last."""
    model = case.copy_of_model().to(memory_format=torch.channels_last)
    return _torch_call(model, case.images.to(case.dtype, memory_format=torch.channels_last))


def compiled(case: Case) -> Call:
    """transformers through torch.compile in its default mode."""
    torch._dynamo.reset()  # else a second batch size would be compiled for any size
    return _torch_call(torch.compile(case.copy_of_model()), case.images.to(case.dtype))


class _Logits(nn.Module):
    """A model as other libraries convert it: one tensor in, one out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values, return_dict=False)[0]


def onnxruntime(case: Case) -> Call:
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
        torch.onnx.export(_Logits(case.model).eval(), (case.images,), path, dynamo=True, verbose=False)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: case.images.numpy()}
    return lambda: session.run(None, inputs)[0]


def openvino(case: Case) -> Call:
    """OpenVINO on the PyTorch model, computing in the case's type."""
    return _openvino(case, {torch.float32: "f32", torch.bfloat16: "bf16"}[case.dtype])


def openvino_float32(case: Case) -> Call:
    """OpenVINO in float32 on a bfloat16 case: its best where the processor has no bfloat16 instructions."""
    return _openvino(case, "f32")


def _openvino(case: Case, precision: str) -> Call:
    import openvino as ov

    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        # It would take the hint all the same, and run its reference implementation: minutes for every image.
        raise Unavailable("it needs a processor with bfloat16 instructions (AVX512-BF16 or AMX)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(_Logits(case.model).eval(), example_input=case.images)
    model.reshape(list(case.images.shape))
    settings = {
        "INFERENCE_NUM_THREADS": case.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled_model, images = core.compile_model(model, "CPU", settings), case.images.numpy()
    return lambda: compiled_model(images)[0]


PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("ours", "mobilevit_fast", ours),
        Provider("ours-channels-last", "mobilevit_fast, channels_last images", ours_channels_last),
        Provider("transformers", "transformers", eager),
        Provider("transformers-channels-last", "transformers in channels_last", eager_channels_last),
        Provider("compile", "transformers, torch.compile", compiled),
        Provider("onnxruntime", "ONNX Runtime", onnxruntime),
        Provider("openvino", "OpenVINO", openvino),
        Provider("openvino-float32", "OpenVINO in float32", openvino_float32, ("bfloat16",)),
    )
}
"""Every provider by name; those called ours are this package."""
OURS = tuple(name for name in PROVIDERS if name.startswith("ours"))
