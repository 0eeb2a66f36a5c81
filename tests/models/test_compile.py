"""torch.compile without graph breaks, and torch.export for any batch size."""

import copy
from pathlib import Path

import pytest
import torch

from mobilevit_fast.models import (
    MobileViTForImageClassification,
    MobileViTForSemanticSegmentation,
    MobileViTLayer,
)
from mobilevit_fast.models.outputs import ImageClassifierOutput, SemanticSegmenterOutput
from testing.pairs import assert_same, give_real_signal, images, shortened, tiny_config

CLASSES = {
    MobileViTForImageClassification: ImageClassifierOutput,
    MobileViTForSemanticSegmentation: SemanticSegmenterOutput,
}


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.compiler.reset()
    model = request.param(tiny_config(hidden_dropout_prob=0.0, classifier_dropout_prob=0.0)).eval()
    give_real_signal(model)
    return shortened(model)


def test_compile_without_graph_breaks(model: torch.nn.Module) -> None:
    # "eager" runs the captured graph as it is: what is tested is the capture.
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    pixel_values = images(2, 50, 33)
    with torch.inference_mode():
        got, expected = compiled(pixel_values, output_hidden_states=True), model(pixel_values)
    assert type(got) is CLASSES[type(model)]
    assert len(got.hidden_states) == 5
    assert torch.equal(got.logits, expected.logits)


def test_export_with_any_batch_size(model: torch.nn.Module, tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(model, (images(2, 50, 33),), dynamic_shapes={"pixel_values": {0: batch}})
    if isinstance(model, MobileViTForImageClassification):
        torch.export.save(exported, tmp_path / "model.pt2")
        exported = torch.export.load(tmp_path / "model.pt2")
    program = exported.module()
    for count in (1, 2, 5):
        pixel_values = images(count, 50, 33, seed=count)
        with torch.inference_mode():
            got, expected = program(pixel_values), model(pixel_values)
        assert type(got) is CLASSES[type(model)]
        assert list(got) == ["logits"]
        assert_same(got.logits, expected.logits)


def test_compiled_training_with_gradient_checkpointing() -> None:
    torch.compiler.reset()
    plain = MobileViTLayer(tiny_config(hidden_dropout_prob=0.0), 4, 6, stride=2, hidden_size=8, num_stages=1).double()
    give_real_signal(plain)
    plain.gradient_checkpointing = True
    compiled = copy.deepcopy(plain)
    features = torch.randn(3, 4, 10, 12, dtype=torch.float64)
    plain(features).square().mean().backward()
    torch.compile(compiled, fullgraph=True, backend="aot_eager")(features).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters()}
    compiled_gradients = {name: parameter.grad for name, parameter in compiled.named_parameters()}
    torch.testing.assert_close(compiled_gradients, gradients, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(dict(compiled.named_buffers()), dict(plain.named_buffers()), rtol=1e-8, atol=1e-12)
