"""Any configuration, any image size: accelerated and original agree."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mobilevit_fast as mvf
from tests.integrations import zoo

CHANNELS = st.integers(1, 5).map(lambda n: 4 * n)


@st.composite
def configurations(draw: st.DrawFn) -> mvf.MobileViTConfig:
    """Small models with every option that changes what is computed."""
    heads = draw(st.sampled_from([1, 2, 4]))
    sizes = draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))
    return zoo.tiny_config(
        num_attention_heads=heads,
        hidden_sizes=[heads * 4 * n for n in sizes],
        neck_hidden_sizes=draw(st.lists(CHANNELS, min_size=7, max_size=7)),
        expand_ratio=draw(st.sampled_from([1.0, 2.0, 4.0])),
        mlp_ratio=draw(st.sampled_from([1.0, 2.0, 3.0])),
        patch_size=draw(st.sampled_from([1, 2, 3, 4])),
        conv_kernel_size=draw(st.sampled_from([1, 3, 5])),
        hidden_act=draw(st.sampled_from(["silu", "relu", "gelu", "hardswish"])),
        qkv_bias=draw(st.booleans()),
        output_stride=draw(st.sampled_from([8, 16, 32])),
        num_labels=draw(st.integers(2, 5)),
    )


@settings(max_examples=30)
@given(
    config=configurations(),
    size=st.tuples(st.integers(16, 80), st.integers(16, 80)),
    batch=st.integers(1, 3),
    segment=st.booleans(),
)
def test_accelerated_and_original_agree(
    config: mvf.MobileViTConfig, size: tuple[int, int], batch: int, segment: bool
) -> None:
    """In float64, where a difference is a mistake and not a rounding error."""
    model = (zoo.native_segmentation if segment else zoo.native)(config).double()
    x = zoo.images(batch, *size).double()
    expected = zoo.run(model, x)
    mvf.accelerate(model, strict=True)
    difference = (zoo.run(model, x) - expected).abs().max()
    assert difference <= 1e-9 * expected.abs().max().clamp(min=1)
    mvf.restore(model)
    assert torch.equal(zoo.run(model, x), expected)
