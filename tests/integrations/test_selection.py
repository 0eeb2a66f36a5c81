"""What is fused and what is left alone, with the reason in words; wrong arguments."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mobilevit_fast as mvf
from mobilevit_fast.kernels.triton.backend import INSTALLED
from mobilevit_fast.models import MobileViTForImageClassification
from mobilevit_fast.models.transformer import MobileViTSelfAttention
from testing.peers import import_timm
from testing.tolerance import close
from tests.integrations import zoo


def reasons(model: nn.Module) -> dict[str, str]:
    return {region.path: region.reason for region in mvf.plan(model).skipped}


def test_plan_changes_nothing_and_agrees_with_report() -> None:
    for make in zoo.SMALL.values():
        model = make()
        kinds = [type(m) for m in model.modules()]
        plan = mvf.plan(model)
        assert kinds == [type(m) for m in model.modules()]
        assert [r.reason for r in mvf.report(model)] == ["not accelerated"] * len(plan)
        assert mvf.report(mvf.accelerate(model)).to_list() == plan.to_list()


@pytest.mark.skipif(not INSTALLED, reason="Triton is not installed")
@pytest.mark.parametrize("name", zoo.SMALL)
def test_every_region_of_a_model_on_a_gpu_is_tritons(name: str) -> None:
    """Tensors without values stand for those on a GPU."""
    model = zoo.SMALL[name]().to("meta")
    for report in (mvf.plan(model), mvf.report(mvf.accelerate(model, strict=True))):
        assert len(report) >= 11
        assert {backend for region in report for backend in region.backends.values()} == {"triton"}


def half_precision_model() -> nn.Module:
    """A model in a type that no C++ CPU kernel takes."""
    return zoo.SMALL["native"]().half()


def test_cpu_kernels_run_every_region() -> None:
    model = mvf.accelerate(zoo.SMALL["native"]())
    regions = list(mvf.report(model))
    assert len(regions) == 12
    assert {backend for r in regions for backend in r.backends.values()} == {"cpu"}
    with torch.profiler.profile() as profile:
        zoo.run(model, zoo.images())
    counts = {event.key: event.count for event in profile.key_averages() if event.key.startswith("mobilevit_fast::")}
    heads = counts["mobilevit_fast::classifier_head"]  # the profiler counts a call once or twice, all alike
    assert {name: count / heads for name, count in counts.items()} == {
        "mobilevit_fast::conv2d_bias_act": 7,  # the stem, two in each block
        "mobilevit_fast::inverted_residual": 7,
        "mobilevit_fast::mobilevit_transformer": 3,
        "mobilevit_fast::classifier_head": 1,
    }


def test_report_reads_as_a_table() -> None:
    model = zoo.SMALL["native"]()
    text = str(mvf.report(model))
    assert "0 of 12 regions fused" in text
    text = str(mvf.report(mvf.accelerate(model)))
    assert text.splitlines()[0].rstrip() == "12 of 12 regions fused"
    assert "mobilevit.encoder.layer.2.downsampling_layer" in text
    text = str(mvf.report(mvf.accelerate(half_precision_model())))
    assert text.splitlines()[0].startswith("12 of 12 regions fused, 12 of them by PyTorch's own operators (reference)")
    assert "cpu: expected one of torch.float32, torch.bfloat16, got torch.float16" in text


def test_backend_by_name() -> None:
    model = mvf.accelerate(zoo.SMALL["native"](), backend="reference")
    assert {b for r in mvf.report(model).fused for b in r.backends.values()} == {"reference"}
    model = mvf.accelerate(zoo.SMALL["native"](), backend="cpu", strict=True)
    assert {b for r in mvf.report(model).fused for b in r.backends.values()} == {"cpu"}
    model = zoo.SMALL["native"]()
    model.mobilevit.conv_stem.half()
    report = mvf.report(mvf.accelerate(model, backend="cpu"))
    assert [r.path for r in report.skipped] == ["mobilevit.conv_stem"]
    with pytest.raises(ValueError, match=r"expected every region to be fused.*got torch.float16"):
        mvf.accelerate(mvf.restore(model), backend="cpu", strict=True)
    with pytest.raises(ValueError, match=r"expected at least one region.*there is no triton kernel"):
        mvf.accelerate(zoo.SMALL["native"](), backend="triton")


def test_accelerating_again_replaces_the_backend_and_plan_ignores_the_old_one() -> None:
    model = mvf.accelerate(zoo.SMALL["native"](), backend="reference")
    chosen = {b for r in mvf.plan(model) for b in r.backends.values()}
    assert chosen == {"cpu"}
    mvf.accelerate(model)
    assert {b for r in mvf.report(model).fused for b in r.backends.values()} == {"cpu"}
    mvf.accelerate(model, backend="cpu")
    mvf.accelerate(model.half())
    assert {b for r in mvf.report(model).fused for b in r.backends.values()} == {"reference"}


def test_the_report_keeps_the_reasons_of_the_request() -> None:
    model = zoo.SMALL["native"]()
    model.mobilevit.conv_stem.half()
    mvf.accelerate(model, backend="cpu")
    assert {r.reason for r in mvf.report(model).skipped} == {
        "mobilevit_fast.conv2d_bias_act: cpu: expected one of torch.float32, torch.bfloat16, got torch.float16"
    }
    mvf.accelerate(model, include=["mobilevit_block"])
    assert {r.reason for r in mvf.report(model).skipped} == {"left out by include"}
    assert all(not r.passed_over for r in mvf.report(model).skipped)
    assert {r.reason for r in mvf.report(mvf.restore(model))} == {"not accelerated"}


def test_strict_means_the_regions_that_were_asked_for() -> None:
    model = mvf.accelerate(zoo.SMALL["native"](), include=["mobilevit_block"], strict=True)
    assert len(mvf.report(model).fused) == 3


def test_the_error_for_many_skipped_regions_is_one_short_line() -> None:
    with pytest.raises(ValueError, match=r"expected at least one region") as caught:
        mvf.accelerate(zoo.SMALL["native"](), backend="cuda")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800
    assert "plan() lists them all" in str(caught.value)


def test_include() -> None:
    model = mvf.accelerate(zoo.SMALL["native"](), include=["mobilevit_block", "mobilevit.conv_stem"])
    assert [r.path for r in mvf.report(model).fused] == [
        "mobilevit.conv_stem",
        "mobilevit.encoder.layer.2",
        "mobilevit.encoder.layer.3",
        "mobilevit.encoder.layer.4",
    ]
    model = mvf.accelerate(zoo.SMALL["native"](), include=["mobilevit.encoder.layer.3*"])
    assert len(mvf.report(model).fused) == 2
    with pytest.raises(ValueError, match=r"expected include to name kinds \(aspp, class.*got \['attention'\]"):
        mvf.accelerate(zoo.SMALL["native"](), include=["attention"])
    with pytest.raises(TypeError, match="expected include to be several names, got the string"):
        mvf.accelerate(zoo.SMALL["native"](), include="mobilevit_block")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fast": True}, TypeError, "unexpected keyword argument 'fast'"),
        ({"backend": "tpu"}, ValueError, "expected a backend among auto, .*, got 'tpu'"),
        ({"compute_dtype": torch.int8}, ValueError, r"compute_dtype among torch\.bfloat16, .*, got torch\.int8"),
        ({"compute_dtype": torch.float64}, ValueError, r"compute_dtype among torch\.bfloat16, .*, got torch\.float64"),
        ({"compute_dtype": "bfloat16"}, ValueError, "compute_dtype among .*, got 'bfloat16'"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    model = zoo.SMALL["native"]()
    with pytest.raises(error, match=message):
        mvf.accelerate(model, **arguments)
    assert [r.reason for r in mvf.report(model)] == ["not accelerated"] * 12


def test_unsupported_models() -> None:
    with pytest.raises(ValueError, match=r"expected a MobileViT of transformers .*got torch\.nn\..*Sequential"):
        mvf.accelerate(nn.Sequential(nn.Conv2d(3, 8, 3)))
    with pytest.raises(ValueError, match="which holds no MobileViT block"):
        mvf.accelerate(import_timm().create_model("mobilevitv2_050"))
    with pytest.raises(ValueError, match="which holds no MobileViT block"):
        mvf.plan(import_timm().create_model("repvgg_a0"))
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got str"):
        mvf.accelerate("mobilevit")  # type: ignore[type-var]
    with pytest.raises(ValueError, match="expected a model with a forward for compute_dtype, got a ModuleDict"):
        mvf.accelerate(nn.ModuleDict({"eye": zoo.SMALL["native"]()}), compute_dtype=torch.bfloat16)
    with pytest.raises(TypeError, match=r"expected a model before torch\.compile, got a compiled one"):
        mvf.accelerate(torch.compile(zoo.SMALL["native"]()))


def test_a_model_inside_another() -> None:
    outer = nn.ModuleDict({"eye": zoo.SMALL["native-backbone"](), "head": nn.Linear(24, 3)})
    mvf.accelerate(outer)
    assert all(region.path.startswith("eye.") for region in mvf.report(outer).fused)
    assert len(mvf.report(outer).fused) == 12


def test_subclasses_are_skipped_with_the_reason() -> None:
    class Special(MobileViTForImageClassification):
        def forward(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            output = super().forward(*args, **kwargs)
            output.logits = output.logits + 100
            return output

    class CausalAttention(MobileViTSelfAttention):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden_states) * 0

    model = Special(zoo.tiny_config()).eval()
    attention = model.mobilevit.encoder.layer[3].transformer.layer[0].attention
    attention.attention.__class__ = CausalAttention
    expected = zoo.run(model, zoo.images())
    mvf.accelerate(model)
    close(zoo.run(model, zoo.images()), expected)
    skipped = {region.path: region.reason for region in mvf.report(model).skipped}
    assert "Special is a subclass of MobileViTForImageClassification" in skipped[""]
    assert "layer.0.attention.attention is a" in skipped["mobilevit.encoder.layer.3"]
    assert "CausalAttention" in skipped["mobilevit.encoder.layer.3"]
    # What lies inside a skipped region is still looked at.
    fused = {region.path for region in mvf.report(model).fused}
    assert "mobilevit.encoder.layer.3.conv_kxk" in fused


def test_hooked_children_are_skipped_with_the_reason() -> None:
    model = zoo.SMALL["native"]()
    model.mobilevit.encoder.layer[2].fusion.register_forward_hook(lambda *_: None)
    model.mobilevit.register_forward_hook(lambda *_: None)
    found = reasons(model)
    assert "its child fusion has a hook" in found["mobilevit.encoder.layer.2"]
    assert "its child mobilevit has a hook" in found[""]


@pytest.mark.filterwarnings("ignore:.*quantiz:UserWarning", "ignore:.*quantiz:DeprecationWarning")
def test_quantised_children_are_skipped_with_the_reason() -> None:
    model = zoo.SMALL["native"]()
    expected = zoo.run(model, zoo.images())
    torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8, inplace=True)
    quantised = zoo.run(model, zoo.images())
    found = reasons(model)
    assert "torch.ao.nn.quantized.dynamic.modules.linear.Linear" in found["mobilevit.encoder.layer.2"]
    mvf.accelerate(model)
    close(zoo.run(model, zoo.images()), quantised)
    assert not torch.equal(quantised, expected)


def test_parametrised_children_are_skipped_with_the_reason() -> None:
    model = zoo.SMALL["native"]()
    block = model.mobilevit.encoder.layer[4]
    torch.nn.utils.parametrizations.weight_norm(block.transformer.layer[0].output.dense)
    assert "ParametrizedLinear" in reasons(model)["mobilevit.encoder.layer.4"]


def unpadded(head: Any) -> None:
    head.convs[2].convolution.padding = (2, 2)


def another_activation(head: Any) -> None:
    head.convs[1].activation = nn.SiLU()


def another_pooling(head: Any) -> None:
    head.convs[4].global_pool = nn.AdaptiveAvgPool2d(2)


def another_branch(head: Any) -> None:
    head.convs[4] = nn.Identity()


def another_width(head: Any) -> None:
    head.convs[0].convolution, head.convs[0].normalization = nn.Conv2d(12, 7, 1), nn.BatchNorm2d(7)


def no_norm(head: Any) -> None:
    head.convs[3].normalization = None


def observed(head: Any) -> None:
    head.convs[4].conv_1x1.register_forward_hook(lambda *_: None)


HEADS = [
    (unpadded, r"one of its atrous convolutions has dilation \[12, 12\] and padding \[2, 2\]"),
    (another_activation, "its convolutions have different activations: relu, silu"),
    (another_pooling, r"its pooling is AdaptiveAvgPool2d\(output_size=2\), not the mean over the image"),
    (another_branch, "its branches are MobileViTConvLayer, .*, Identity"),
    (another_width, "its 5 branches and its projection have channels that do not fit together"),
    (no_norm, "some of its atrous convolutions have a normalisation and others have none"),
    (observed, r"its child convs\.4\.conv_1x1 has a hook"),
]


@pytest.mark.parametrize("name", ["native-segmentation", "transformers-segmentation"])
@pytest.mark.parametrize(("change", "reason"), HEADS)
def test_segmentation_heads_that_are_skipped(name: str, change: Callable[[Any], None], reason: str) -> None:
    model = zoo.SMALL[name]()
    change(model.segmentation_head.aspp)
    assert re.search(reason, reasons(model)["segmentation_head.aspp"])
    mvf.accelerate(model)
    kinds = {region.path: region.kind for region in mvf.report(model).fused}
    assert kinds["segmentation_head.aspp.project"] == "conv2d_bias_act"  # its convolutions are fused one by one


@pytest.mark.parametrize("name", ["native-segmentation", "transformers-segmentation"])
def test_a_segmentation_head_is_one_region(name: str) -> None:
    model = mvf.accelerate(zoo.SMALL[name](), strict=True)
    within = [region for region in mvf.report(model) if region.path.startswith("segmentation_head")]
    assert [(region.path, region.kind) for region in within] == [
        ("segmentation_head.aspp", "aspp"),
        ("segmentation_head.classifier", "conv2d_bias_act"),
    ]
    assert within[0].backends == {"aspp": "cpu"}


def test_dropout_inside_a_segmentation_head_is_respected() -> None:
    model = mvf.accelerate(zoo.SMALL["native-segmentation"]())
    dropout = model.segmentation_head.aspp.dropout
    dropout.p = 0.5
    x = zoo.images()
    assert torch.equal(zoo.run(model, x), zoo.run(model, x))
    dropout.train()  # Monte Carlo dropout
    assert not torch.equal(zoo.run(model, x), zoo.run(model, x))


def test_a_forward_replaced_on_the_instance_is_respected() -> None:
    model = zoo.SMALL["native"]()
    stem = model.mobilevit.conv_stem
    stem.forward = lambda features: type(stem).forward(stem, features) * 2  # type: ignore[method-assign]
    assert "replaced on the instance" in reasons(model)["mobilevit.conv_stem"]


def test_variants_of_timm() -> None:
    timm = import_timm()
    from timm.models import byobnet, mobilevit

    with_attention = dataclasses.replace(mobilevit.model_cfgs["mobilevit_xxs"], attn_layer="se")
    found = reasons(byobnet.ByobNet(with_attention).eval())
    assert len(found) == 7
    assert all("its child attn" in reason or "its attn is a SEModule" in reason for reason in found.values())
    features = timm.create_model("mobilevit_xxs", num_classes=0).eval()
    assert list(reasons(features)) == [""]
    assert "it has no linear classifier" in reasons(features)[""]
    expected = zoo.run(features, zoo.images())
    close(zoo.run(mvf.accelerate(features), zoo.images()), expected)


def test_importing_the_package_imports_no_library_it_accelerates() -> None:
    script = "import sys, mobilevit_fast; print(sorted({'timm', 'transformers', 'triton'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
