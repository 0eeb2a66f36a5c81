"""Tools that read a model's code or record its operators are shown the plain model, and leave an accelerated one."""

from __future__ import annotations

import io
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.proxy import TraceError
from torch.utils.flop_counter import FlopCounterMode

import mobilevit_fast as mvf
from mobilevit_fast import ops
from testing.pairs import abridged, shortened
from testing.samples import SAMPLES
from testing.tiers import thorough_where
from tests.integrations import zoo

IMAGES = zoo.images(2)
# Sizes become constants in a trace, of the plain model as well.
pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # of transformers, which is asked
]


def _build(name: str) -> nn.Module:
    if name == "timm-features":
        return shortened(zoo.timm(features_only=True, out_indices=(0, 2)))
    model: Any = zoo.SMALL[name]()
    if name.startswith("native"):
        model.config.return_dict = False  # a trace returns no objects of classes
    return shortened(model) if "segmentation" in name else abridged(model)


MODELS = [*zoo.SMALL, "timm-features"]


def _pair(name: str, **arguments: Any) -> tuple[nn.Module, nn.Module]:
    return _build(name), mvf.accelerate(_build(name), **arguments)


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in _tensors(value)]


def _check_same(output: Any, expected: Any) -> None:
    for one, other in zip(_tensors(output), _tensors(expected), strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


def _check_still_fused(model: nn.Module) -> None:
    assert not mvf.report(model).skipped


# The native classes are built like those of transformers, and segmentation is a backbone with another end.
ALIKE = {"native", "native-backbone", "transformers-segmentation"}


@pytest.mark.parametrize("name", thorough_where(MODELS, ALIKE.__contains__))
def test_a_trace_is_the_plain_models(name: str) -> None:
    plain, model = _pair(name)
    with torch.no_grad():
        model(IMAGES)  # weights are derived, as in a model that was used before
        traced = torch.jit.trace(model, IMAGES, strict=False)
        assert "mobilevit_fast::" not in str(traced.inlined_graph)
        expected = torch.jit.trace(plain, IMAGES, strict=False, check_trace=False)
        _check_same(traced(zoo.images(2, seed=1)), expected(zoo.images(2, seed=1)))
    _check_still_fused(model)


@pytest.mark.parametrize("settings", [{"compute_dtype": torch.bfloat16}, {"cuda_graphs": True}], ids=str)
def test_a_trace_does_not_depend_on_how_the_model_was_accelerated(settings: dict[str, Any]) -> None:
    plain, model = _pair("timm", **settings)
    with torch.no_grad():
        _check_same(torch.jit.trace(model, IMAGES)(IMAGES), plain(IMAGES))


def test_a_trace_of_uint8_images_normalises_them() -> None:
    pixels = mvf.PixelNormalization()
    plain, model = _pair("timm", uint8_images=pixels)
    images = torch.randint(0, 256, IMAGES.shape, dtype=torch.uint8)
    with torch.no_grad():
        _check_same(torch.jit.trace(model, images)(images), plain(pixels.normalized(images, torch.float32)))


@pytest.mark.parametrize("name", ["timm", "timm-features"])
def test_a_script_is_the_plain_models(name: str) -> None:
    plain, model = _pair(name)
    with torch.no_grad():
        scripted = torch.jit.script(model)
        assert "mobilevit_fast::" not in str(scripted.inlined_graph)
        _check_same(scripted(IMAGES), plain(IMAGES))
        assert torch.jit.script(plain).code == scripted.code
    _check_still_fused(model)


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("timm")])
def test_what_cannot_be_scripted_is_refused_in_the_words_for_the_plain_model(name: str) -> None:
    refusals = []
    for model in _pair(name):
        with pytest.raises((OSError, torch.jit.frontend.NotSupportedError)) as refusal:
            torch.jit.script(model)
        refusals.append((refusal.type, str(refusal.value)))
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize("name", MODELS)
def test_what_cannot_be_read_symbolically_is_refused_in_torch_fxs_words(name: str) -> None:
    plain, model = _pair(name)
    with pytest.raises((TraceError, TypeError)):
        torch.fx.symbolic_trace(plain)
    with pytest.raises(TraceError):
        torch.fx.symbolic_trace(model)
    _check_still_fused(model)


def test_a_region_that_can_be_read_symbolically_is() -> None:
    plain, model = _pair("timm")
    for path in ("stem", "stages.0.0", "final_conv"):
        graph = torch.fx.symbolic_trace(model.get_submodule(path))
        features = torch.randn(2, next(graph.parameters()).shape[1], 8, 8)
        with torch.no_grad():
            _check_same(graph(features), plain.get_submodule(path)(features))


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_feature_extractors(library: str) -> None:
    if library == "timm":
        from timm.layers import create_feature_extractor, get_graph_node_names
    else:
        from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
    plain, model = zoo.SMALL["timm"](), mvf.accelerate(zoo.SMALL["timm"]())
    if library == "torchvision":
        plain, model = plain.stages[0], model.stages[0]
    names = get_graph_node_names(model)[1]
    assert names == get_graph_node_names(plain)[1]
    nodes = ["stages.1", "stages.3.1", "stages.4.0.add"] if library == "timm" else ["0"]
    nodes = [name for name in names if any(name.startswith(node) for node in nodes)][-4:]
    x = IMAGES if library == "timm" else torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        features = create_feature_extractor(model, nodes)(x)
        expected = create_feature_extractor(plain, nodes)(x)
    assert list(features) == list(expected)
    for one, other in zip(features.values(), expected.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)  # blocks, which are leaves of the graph, are fused
        assert one.stride() == other.stride()


@pytest.mark.parametrize(("name", "dynamo"), [*((n, False) for n in zoo.SMALL if "seg" not in n), ("timm", True)])
@pytest.mark.filterwarnings("ignore")
def test_pytorchs_onnx_exporters_write_the_plain_model(name: str, dynamo: bool) -> None:
    plain, model = _pair(name)
    files = []
    for exported in (plain, model):
        file = io.BytesIO()
        with torch.no_grad():
            torch.onnx.export(exported, (IMAGES,), file, dynamo=dynamo, verbose=False)
        files.append(onnx.load_from_string(file.getvalue()))
    kinds = [[(node.domain, node.op_type) for node in proto.graph.node] for proto in files]
    assert kinds[0] == kinds[1]
    assert {domain for domain, _ in kinds[1]} <= {"", "ai.onnx"}


@pytest.mark.parametrize("name", MODELS)
def test_floating_point_operations_are_counted(name: str) -> None:
    counts = []
    for model in _pair(name):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(IMAGES)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 1e6


def test_graphs_of_operators_hold_pytorchs() -> None:
    plain, model = _pair("timm")
    with torch.no_grad():
        graph = make_fx(model)(IMAGES)
        assert not [node for node in graph.graph.nodes if "mobilevit_fast" in str(node.target)]
        _check_same(graph(IMAGES), plain(IMAGES))


@pytest.mark.parametrize("op", ops.OPS)
def test_a_trace_of_an_operator_is_the_references(op: str) -> None:
    arguments = list(next(SAMPLES[op]()).arguments)
    x = arguments[0]
    traced = torch.jit.trace(lambda x: ops.OPS[op]("auto", x, *arguments[1:]), x, check_trace=False)
    assert "mobilevit_fast::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), ops.OPS[op]("reference", *arguments))


@pytest.mark.parametrize(
    "module",
    [mvf.nn.ConvNormAct(8, 8, 3), mvf.nn.InvertedResidual(8, 8), mvf.nn.MobileViTBlock(8, 16, 1, stride=2)],
    ids=lambda module: module.kind,
)
def test_a_trace_of_a_module_made_by_its_constructor_holds_no_fused_operator(module: nn.Module) -> None:
    x = torch.randn(2, 8, 8, 8)
    with torch.no_grad():
        traced = torch.jit.trace(module.eval(), x)
        assert "mobilevit_fast::" not in str(traced.inlined_graph)
        torch.testing.assert_close(traced(x), module(x), rtol=1e-4, atol=1e-4)
