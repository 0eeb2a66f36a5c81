"""Modules made by their constructors: ordinary modules that run the fused operators in evaluation mode."""

from __future__ import annotations

import copy
import inspect
import io
import warnings

import pytest
import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from mobilevit_fast.acceleration.class_swap import defuse
from mobilevit_fast.nn import ASPP, ClassifierHead, ConvNormAct, InvertedResidual, MobileViTBlock
from testing.pairs import abridged
from testing.tolerance import assert_within_twice, close
from tests.integrations.test_compile import operators
from tests.nn.cases import CASES, Case


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def calls(module: nn.Module, x: Tensor) -> list[str]:
    """The names of the operators of this package that a call without gradients runs."""
    with torch.profiler.profile() as profile:
        run(module, x)
    return sorted({event.key for event in profile.key_averages() if event.key.startswith("mobilevit_fast::")})


def run(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return module(x)


def plain(module: nn.Module) -> nn.Module:
    """A copy that runs this package's plain modules in evaluation mode too."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        defuse(part)
    return twin


class Ours(InvertedResidual):
    """A user's subclass, with a constructor and a child of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, expand_ratio=2)
        self.after = nn.ReLU()


class Doubled(ConvNormAct):
    """A user's subclass that computes something else."""

    def forward(self, features: Tensor) -> Tensor:
        return 2 * super().forward(features)


def test_in_evaluation_mode_it_errs_at_most_twice_as_much_as_the_plain_module(case: Case) -> None:
    module, x = case.ready(), case.input()
    assert all(name.endswith(("act", "conv2d", "residual", "transformer", "aspp", "head")) for name in calls(module, x))
    assert calls(module, x)
    assert not calls(plain(module), x)
    y = run(module, x)
    assert y.shape == case.gives
    layout = torch.channels_last
    expected = run(plain(module).to(memory_format=layout), x.contiguous(memory_format=layout))
    assert_within_twice(y, expected, run(plain(module).double(), x.double()))


def test_it_is_what_its_class_says(case: Case) -> None:
    module = case.make()
    public = next(
        c for c in (ASPP, ClassifierHead, ConvNormAct, InvertedResidual, MobileViTBlock) if isinstance(module, c)
    )
    assert type(module).__name__ == public.__name__
    assert repr(module).startswith(f"{public.__name__}(\n")
    assert "Fused" not in repr(module)
    assert list(inspect.signature(public).parameters)[:1] == ["in_channels"]
    assert type(case.make()) is type(module)
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_fresh_weights_are_a_mobilevits() -> None:
    torch.manual_seed(0)
    for case in CASES.values():
        for part in case.make().modules():
            if isinstance(part, nn.Conv2d | nn.Linear) and part.weight.numel() >= 64:
                assert 0.012 < part.weight.std() < 0.028
            if isinstance(getattr(part, "bias", None), nn.Parameter):
                assert not part.bias.any()
            if isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
                assert (part.weight == 1).all()
    model = mvf.MobileViTModel(mvf.MobileViTConfig())
    layer = model.encoder.layer[1].layer[0]
    module = InvertedResidual(32, 64, stride=2, expand_ratio=4)
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    assert shapes == {name: value.shape for name, value in layer.state_dict().items()}


def test_it_trains(case: Case) -> None:
    module, x = case.ready(), case.input()
    twin = plain(module)
    before = run(module, x)
    results = []
    for one in (module, twin):
        optimiser = torch.optim.SGD(one.parameters(), lr=0.01)
        one.train()
        for _ in range(2):
            optimiser.zero_grad()
            torch.manual_seed(1)  # of dropout
            one(x).square().mean().backward()
            optimiser.step()
        results.append(run(one.eval(), x))
    for (name, actual), expected in zip(module.named_parameters(), twin.parameters(), strict=True):
        assert actual.grad is not None
        assert torch.equal(actual, expected), name
    for actual, expected in zip(module.buffers(), twin.buffers(), strict=True):
        assert torch.equal(actual, expected)
    close(*results)
    assert not torch.equal(results[0], before)
    assert calls(module, x)


def test_gradients_of_the_input_in_evaluation_mode(case: Case) -> None:
    module, x = case.ready(), case.input().requires_grad_()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradients enabled")
        (actual,) = torch.autograd.grad(module(x).square().sum(), x)
    (expected,) = torch.autograd.grad(plain(module)(x).square().sum(), x)
    assert torch.equal(actual, expected)


def test_state_dicts_go_round(case: Case) -> None:
    module, x = case.ready(), case.input()
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = case.make().eval()
    run(other, x)
    assert str(other.load_state_dict(torch.load(file), strict=True)) == "<All keys matched successfully>"
    assert torch.equal(run(other, x), run(module, x))


def test_copies_and_pickles(case: Case) -> None:
    module, x = case.ready(backend="reference"), case.input()
    expected = run(module, x)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for twin in (copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert type(twin) is type(module)
        assert torch.equal(run(twin, x), expected)
        assert mvf.report(twin).to_list() == mvf.report(module).to_list()
        with torch.no_grad():
            next(twin.parameters()).mul_(2)
        assert not torch.equal(run(twin, x), expected)
        assert torch.equal(run(module, x), expected)


def test_changed_weights_are_seen(case: Case) -> None:
    module, x = case.ready(), case.input()
    before = run(module, x)
    with torch.no_grad():
        next(module.parameters()).mul_(1.5)
    assert not torch.equal(run(module, x), before)
    close(run(module, x), run(plain(module), x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype_and_device(case: Case, dtype: torch.dtype) -> None:
    module = case.make(device="meta", dtype=dtype)
    tensors = [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert {tensor.dtype for tensor in tensors} == {dtype}
    module = case.ready(device="cpu", dtype=dtype)
    assert run(module, case.input().to(dtype)).dtype == dtype
    assert calls(module, case.input().to(dtype))
    assert next(case.make().parameters()).dtype == torch.float32


def test_compile_and_export(case: Case) -> None:
    torch._dynamo.reset()
    module, x = case.ready(), case.input()
    expected = run(module, x)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    close(run(torch.compile(module, fullgraph=True, backend=backend), x), expected)
    assert [name for g in graphs[0].modules() if hasattr(g, "graph") for name in operators(g.graph)]
    with torch.no_grad():
        program = torch.export.export(module, (x,), dynamic_shapes={"features": {0: torch.export.Dim("batch", min=1)}})
    assert operators(program.graph)
    close(run(program.module(), x[:1]), expected[:1])


def test_report_accelerate_and_restore(case: Case) -> None:
    model, x = nn.Sequential(case.ready(backend="reference"), nn.Identity()).eval(), case.input()
    kind, state = type(model[0]), model[0].__dict__["_mvf"]
    expected = run(model, x)
    for say in (mvf.plan, mvf.report):
        regions = say(model)
        assert not regions.skipped
        assert tuple(region.kind for region in regions) == case.kinds
        assert {backend for region in regions for backend in region.backends.values()} == {"reference"}
    for _ in range(2):
        assert mvf.accelerate(model, strict=True) is model
        assert type(model[0]) is kind
        assert model[0].__dict__["_mvf"] is state
        assert torch.equal(run(model, x), expected)
        assert not mvf.report(model).skipped
    assert mvf.restore(model) is model
    assert type(model[0]) is kind
    assert torch.equal(run(model, x), expected)
    assert calls(model, x)
    with mvf.accelerated(model):
        assert torch.equal(run(model, x), expected)
    assert type(model[0]) is kind
    assert calls(model, x)


def test_compute_dtype_comes_and_goes(case: Case) -> None:
    module, x = case.ready(), case.input()
    kind, expected = type(module), run(module, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = run(module, x)
    assert half.dtype == torch.bfloat16
    mvf.accelerate(module, compute_dtype=torch.bfloat16)
    assert torch.equal(run(module, x), half)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for twin in (copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert torch.equal(run(twin, x), half)
        assert type(mvf.restore(twin)) is kind
    assert repr(module).startswith(f"{kind.__name__}(")
    mvf.restore(module)
    assert type(module) is kind
    assert torch.equal(run(module, x), expected)


def test_include_leaves_them_out_of_what_it_names() -> None:
    model = nn.Sequential(CASES["conv"].ready(), mvf.models.MobileViTInvertedResidual(mvf.MobileViTConfig(), 12, 12, 1))
    mvf.accelerate(model.eval(), include=["inverted_residual"])
    assert [region.path for region in mvf.report(model).fused] == ["0", "1"]
    mvf.accelerate(model, include=["1.expand_1x1"])
    assert [region.path for region in mvf.report(model).fused] == ["0", "1.expand_1x1"]


def test_one_inside_a_region_of_this_package_is_part_of_it() -> None:
    model = mvf.MobileViTModel(mvf.MobileViTConfig.preset("xx_small")).eval()
    block, x = model.encoder.layer[2], torch.randn(1, 24, 8, 8)
    expected = run(block, x)
    block.conv_kxk = ConvNormAct(48, 48, 3).eval().copy_weights_from(block.conv_kxk)
    block.downsampling_layer = InvertedResidual(24, 48, 2, 2).eval().copy_weights_from(block.downsampling_layer)
    for _ in range(2):
        mvf.accelerate(model, strict=True)
        assert isinstance(block, MobileViTBlock)
        close(run(block, x), expected)
        mvf.restore(model)
        assert not isinstance(block, MobileViTBlock)
        assert isinstance(block.conv_kxk, ConvNormAct)
        close(run(block, x), expected)
    block.conv_kxk = Doubled(48, 48, 3).eval()
    reasons = {region.path: region.reason for region in mvf.plan(model).skipped}
    assert "conv_kxk is a tests.nn.test_constructed.Doubled, which may compute" in reasons["encoder.layer.2"]


def test_subclasses() -> None:
    module = Ours(8).eval()
    x = torch.randn(1, 8, 5, 5)
    assert isinstance(module, Ours)
    assert isinstance(module, InvertedResidual)
    assert repr(module).startswith("Ours(")
    assert calls(module, x) == ["mobilevit_fast::inverted_residual"]
    module.eval().train().eval()
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    twin = torch.load(file, weights_only=False)
    assert type(twin) is type(module)
    assert torch.equal(run(twin, x), run(module, x))
    assert [region.fused for region in mvf.report(nn.Sequential(module))] == [True]
    assert isinstance(type(module)(16), Ours)
    doubled = Doubled(8, 8, 1).eval()
    close(run(doubled, x), 2 * run(plain(ConvNormAct(8, 8, 1).eval().copy_weights_from(doubled)), x))
    (region,) = mvf.report(doubled)
    assert region.reason == "Doubled has a forward of its own"


def test_gradient_checkpointing() -> None:
    module, x = CASES["block"].ready(), CASES["block"].input()
    module.train()
    gradients = []
    for module.gradient_checkpointing in (False, True):
        module.zero_grad()
        torch.manual_seed(0)
        module(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in module.parameters()])
    for stored, computed_again in zip(*gradients, strict=True):
        assert torch.equal(stored, computed_again)


def test_activations_are_the_operators() -> None:
    x = torch.randn(1, 8, 6, 6)
    for name, function in mvf.ops.ACTIVATIONS.items():
        module = ConvNormAct(8, 8, 1, activation=name).eval()
        assert mvf.report(module).fused
        close(run(module, x), function(run(plain(module).normalization, run(module.convolution, x))))
        assert run(InvertedResidual(8, 8, activation=name).eval(), x).shape == x.shape


def test_a_first_convolution_takes_no_bytes() -> None:
    model = mvf.MobileViTModel(mvf.MobileViTConfig.preset("xx_small")).eval()
    model.conv_stem = ConvNormAct(3, 16, 3, 2).eval()
    with pytest.raises(
        ValueError, match=r"expected a first convolution of the model's own for uint8_images, got one made"
    ):
        mvf.accelerate(model, uint8_images=mvf.PixelNormalization())


@pytest.mark.slow
def test_a_model_that_holds_one_becomes_an_onnx_file(tmp_path: object) -> None:
    pytest.importorskip("onnxscript")
    config = mvf.MobileViTConfig.preset("xx_small", image_size=64)
    model = abridged(mvf.MobileViTForImageClassification(config).eval())
    layer = model.mobilevit.encoder.layer[0].layer
    layer[0] = InvertedResidual(16, 16, 1, 2).eval().copy_weights_from(layer[0])
    written = mvf.export_onnx(model, f"{tmp_path}/model.onnx")
    assert written.size > 3 * sum(parameter.numel() for parameter in model.parameters())  # of four bytes each
    assert calls(layer[0], torch.randn(1, 16, 8, 8))


def test_an_input_that_does_not_fit(case: Case) -> None:
    for backend in ("auto", "reference"):
        module = case.ready(backend=backend)
        with pytest.raises((RuntimeError, ValueError), match="expected input of 8 channels, got 7"):
            run(module, torch.randn(1, 7, 8, 8))
