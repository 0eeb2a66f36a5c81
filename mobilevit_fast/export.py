"""ONNX files of the package's models, for ONNX Runtime and whatever else reads them."""

from __future__ import annotations

import copy
import importlib.util
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mobilevit_fast import limits
from mobilevit_fast.acceleration.class_swap import defuse
from mobilevit_fast.files import user_path, write_atomically
from mobilevit_fast.models import MobileViTForImageClassification, MobileViTForSemanticSegmentation

if TYPE_CHECKING:
    import onnx

ONNX_MODELS = (MobileViTForImageClassification, MobileViTForSemanticSegmentation)
"""The models that become ONNX files."""

_INPUT, _OUTPUT, _BATCH = "pixel_values", "logits", "batch"
_TRACED_BATCH = 2
"""Batch size that a dynamic batch is traced with; torch.export takes a size of 1 for a constant."""
_CHECKED_BATCHES = (1, 3)
"""Other sizes than the traced one, so that a batch that became a constant is found."""
_LOWEST_OPSET = 18
"""Lowest opset that PyTorch's exporter writes itself; it reaches older ones only by a conversion that may fail."""
_LARGEST_FILE = 2**31 - 2**20
"""Bytes. Protocol buffers end at 2 GiB; what is not weights takes the rest."""
_ERROR_FACTOR, _ERROR_FLOOR = 10.0, 1e-5
"""Allowed relative error of the logits: so many times PyTorch's own in float32, and at least that. Libraries sum in
other orders, while a graph that is wrong errs by the size of the logits."""


class ExportError(RuntimeError):
    """The exporter failed, or its result does not compute what the model does; no file was written."""


@dataclass(frozen=True)
class OnnxExport:
    """Description of the file that was written.

    Attributes:
        path: of the file.
        input_shape: of `pixel_values`, (batch, channels, height, width); "batch" stands for any size.
        output_shape: of `logits`, likewise: (batch, labels), or (batch, labels, height, width) of a segmentation.
        opset: version of the ONNX operators.
        size: of the file in bytes.
        error: largest difference of ONNX Runtime's logits from float64 ones, relative to the largest of these, on
            random images; None where onnxruntime is not installed and nothing was compared.
    """

    path: Path
    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...]
    opset: int
    size: int
    error: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        shapes = {_INPUT: list(self.input_shape), _OUTPUT: list(self.output_shape)}
        return {"path": str(self.path), **shapes, "opset": self.opset, "size": self.size, "error": self.error}


def export_onnx(
    model: MobileViTForImageClassification | MobileViTForSemanticSegmentation,
    path: str | os.PathLike[str],
    *,
    image_size: int | Sequence[int] | None = None,
    batch: int | Literal["dynamic"] = "dynamic",
    opset: int | None = None,
) -> OnnxExport:
    """Write a model as one ONNX file: `pixel_values` (batch, channels, height, width) to `logits`, both float32.

    The file holds the plain model in evaluation mode, and its weights as float32 whatever type they have (exact for
    bfloat16 and float16). An accelerated model is exported as it was before, since ONNX has none of the fused
    operators. ``model`` itself does not change. Before the file is written, ONNX's checker has to accept it, and ONNX
    Runtime, where it is installed, to agree with the model on random images.

    Needs the packages onnx and onnxscript.

    Args:
        model: of this package, on any device.
        path: of the file, replaced if it exists; its folder has to exist.
        image_size: pixels of the images, one number or (height, width), fixed in the file; None: the configuration's.
        batch: "dynamic" for any number of images from 1 on, or the one number that the file takes.
        opset: version of the ONNX operators, 18 or newer; None: the default of PyTorch.

    Raises:
        TypeError: another kind of model.
        ValueError: an argument that makes no sense, or weights of more than 2 GB, which no single file can hold.
        FileNotFoundError: there is no folder for the file.
        ImportError: packages are missing; the message names them.
        ExportError: the exporter failed, or the result is wrong.
    """
    if not isinstance(model, ONNX_MODELS):
        expected = " or ".join(kind.__name__ for kind in ONNX_MODELS)
        name = f"{type(model).__module__}.{type(model).__qualname__}"
        raise TypeError(
            f"export_onnx: expected a {expected} of mobilevit_fast, whose from_pretrained reads folders of "
            f"transformers and timm too, got {name}"
        )
    height, width = _height_and_width(model.config.image_size if image_size is None else image_size)
    if image_size is None:
        limits.check("MAX_PIXELS", height * width, "export_onnx: pixels of the configuration's image_size")
    if batch != "dynamic" and not _is_positive(batch):
        raise ValueError(f"export_onnx: expected batch 'dynamic' or a positive number, got {batch!r}")
    if opset is not None and not (_is_positive(opset) and opset >= _LOWEST_OPSET):
        raise ValueError(f"export_onnx: expected opset {_LOWEST_OPSET} or newer, got {opset!r}")
    path = user_path(path)
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise FileNotFoundError(f"export_onnx: expected a file in a folder that exists, got {path}")
    weights = 4 * sum(tensor.numel() for tensor in model.state_dict().values())  # uint8 values as float32
    if weights > _LARGEST_FILE:
        raise ValueError(f"export_onnx: expected weights of less than 2 GB in float32, got {weights / 1e9:.1f} GB")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"export_onnx: expected the packages onnx and onnxscript, found no {' and no '.join(missing)}; "
            "pip install onnx onnxscript onnxruntime"
        )

    reference = copy.deepcopy(model).to(device="cpu", dtype=torch.float32).eval()
    for module in reference.modules():
        defuse(module)
    reference.config.output_hidden_states = False  # a copy too; the logits are all that is exported
    reference.config.return_dict = True
    traced = _random_images(_TRACED_BATCH if batch == "dynamic" else batch, model.config.num_channels, height, width)
    proto = _to_onnx(reference, traced, batch == "dynamic", opset)
    content = proto.SerializeToString()
    _check(proto, content)
    error = None
    if importlib.util.find_spec("onnxruntime") is not None:
        sizes = _CHECKED_BATCHES if batch == "dynamic" else (batch,)
        error = max(_compare(content, reference, _random_images(n, *traced.shape[1:])) for n in sizes)
    write_atomically(path, content)
    return OnnxExport(
        path, _shape(proto.graph.input[0]), _shape(proto.graph.output[0]), _opset(proto), len(content), error
    )


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(map(_is_positive, sides)):
        raise ValueError(f"export_onnx: expected image_size one positive number or (height, width), got {size!r}")
    return sides[0], sides[1]


def _random_images(batch: int, channels: int, height: int, width: int) -> Tensor:
    """Normal noise (batch, channels, height, width), the same every time; the global generator is left alone."""
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def _to_onnx(reference: torch.nn.Module, images: Tensor, dynamic: bool, opset: int | None) -> onnx.ModelProto:
    shapes = {_INPUT: {0: torch.export.Dim(_BATCH, min=1)} if dynamic else {}}
    try:
        with torch.no_grad(), _quiet():
            program: Any = torch.onnx.export(
                reference,
                kwargs={_INPUT: images},
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                dynamic_shapes=shapes,
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"export_onnx: PyTorch's exporter failed: {_first_line(error)}") from error
    proto: onnx.ModelProto = program.model_proto
    if opset is not None and _opset(proto) != opset:
        raise ExportError(f"export_onnx: expected operators of opset {opset}, PyTorch made some of {_opset(proto)}")
    _strip(proto)
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # PyTorch's own code, copying what torch.export made.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
        yield


def _strip(proto: onnx.ModelProto) -> None:
    """Take out where each node came from: stack traces with folders of this machine, several times the graph's size."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _check(proto: onnx.ModelProto, content: bytes) -> None:
    import onnx

    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"export_onnx: ONNX's checker refused the result: {_first_line(error)}") from error
    names = ([one.name for one in proto.graph.input], [one.name for one in proto.graph.output])
    if names != ([_INPUT], [_OUTPUT]):
        raise ExportError(f"export_onnx: expected one input {_INPUT} and one output {_OUTPUT}, got {names}")


def _compare(content: bytes, reference: torch.nn.Module, images: Tensor) -> float:
    """Relative error of ONNX Runtime's logits, or an ExportError where they are wrong."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        result = torch.from_numpy(session.run([_OUTPUT], {_INPUT: images.numpy()})[0])
    except Exception as reason:  # its errors have no base of their own
        raise ExportError(
            f"export_onnx: ONNX Runtime cannot run the result on {len(images)} images: {_first_line(reason)}"
        ) from reason
    with torch.inference_mode():
        plain = reference(images).logits
        exact = copy.deepcopy(reference).double()(images.double()).logits
    if result.shape != exact.shape:
        raise ExportError(f"export_onnx: expected logits {tuple(exact.shape)}, ONNX Runtime gave {tuple(result.shape)}")
    error, own = _relative_error(result, exact), _relative_error(plain, exact)
    allowed = max(_ERROR_FACTOR * own, _ERROR_FLOOR)
    if not error <= allowed:  # not a number either
        raise ExportError(
            f"export_onnx: ONNX Runtime and PyTorch disagree on {len(images)} random images: relative error of the "
            f"logits {error:.1e}, expected at most {allowed:.1e}"
        )
    return error


def _relative_error(value: Tensor, exact: Tensor) -> float:
    """Largest difference from the float64 result, over the largest of that."""
    largest = exact.abs().max().item()
    difference = (value.double() - exact).abs().max().item()
    return difference / largest if largest > 0 else difference


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _opset(proto: onnx.ModelProto) -> int:
    return next(one.version for one in proto.opset_import if one.domain in ("", "ai.onnx"))


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
