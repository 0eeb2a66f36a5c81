"""Any configuration that is accepted gives transformers' numbers, and any that is not names its field."""

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.config.activations import ACTIVATIONS
from testing.pairs import CLASSIFICATION, SEGMENTATION, images, make_pair

# The squares of 30 layers in a row overflow with any weights.
TAME_ACTIVATIONS = sorted(set(ACTIVATIONS) - {"relu2"})

widths = st.integers(1, 12)


@st.composite
def configurations(draw: st.DrawFn) -> MobileViTConfig:
    heads = draw(st.integers(1, 3))
    return MobileViTConfig(
        num_attention_heads=heads,
        # The layer norm of a single channel is 0 whatever comes in.
        hidden_sizes=[heads * draw(st.integers(2 if heads == 1 else 1, 6)) for _ in range(3)],
        neck_hidden_sizes=draw(st.lists(widths, min_size=7, max_size=7)),
        patch_size=draw(st.integers(1, 4)),
        mlp_ratio=draw(st.sampled_from([0.6, 1.0, 2.0, 3.3])),
        expand_ratio=draw(st.sampled_from([0.5, 1.0, 2.7, 4.0])),
        hidden_act=draw(st.sampled_from(TAME_ACTIVATIONS)),
        conv_kernel_size=draw(st.sampled_from([1, 3, 5])),
        output_stride=draw(st.sampled_from([8, 16, 32])),
        qkv_bias=draw(st.booleans()),
        aspp_out_channels=draw(widths),
        atrous_rates=draw(st.lists(st.integers(1, 20), min_size=3, max_size=3)),
        num_labels=draw(st.integers(1, 6)),
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    config=configurations(),
    name=st.sampled_from([CLASSIFICATION, SEGMENTATION]),
    batch=st.integers(1, 3),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    seed=st.integers(0, 2**32),
)
def test_same_numbers_as_transformers(
    config: MobileViTConfig, name: str, batch: int, height: int, width: int, seed: int
) -> None:
    # In double: a layer norm over two or three nearly equal channels magnifies rounding without limit. A wrong pixel,
    # stride or option is wrong in any dtype.
    ours, theirs = (model.double() for model in make_pair(name, config, seed))
    pixel_values = images(batch, height, width, seed).double()
    with torch.inference_mode():
        got, expected = ours(pixel_values).logits, theirs(pixel_values).logits
    assert expected.isfinite().all()
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(config=configurations())
def test_json_round_trip(config: MobileViTConfig) -> None:
    assert MobileViTConfig.from_dict(json.loads(config.to_json_string())) == config


not_numbers = st.none() | st.text(max_size=5) | st.booleans() | st.lists(st.integers(1, 5), max_size=2)
not_positive_ints = not_numbers | st.integers(max_value=0) | st.floats()
not_probabilities = (
    not_numbers
    | st.floats(max_value=0, exclude_max=True)
    | st.floats(min_value=1, exclude_min=True)
    | st.just(float("nan"))
)
not_sizes = (
    st.none()
    | st.text(max_size=5)
    | st.floats()
    | st.integers(max_value=0)
    | st.lists(st.integers(1, 9)).filter(lambda sizes: len(sizes) != 2)
    | st.lists(st.integers(max_value=0), min_size=2, max_size=2)
)
not_bools = st.none() | st.text(max_size=5) | st.integers() | st.floats()


def not_lists_of(count: int) -> st.SearchStrategy[Any]:
    """Anything but `count` positive integers."""
    wrong_count = st.lists(st.integers(1, 9)).filter(lambda values: len(values) != count)
    wrong_value = st.lists(not_positive_ints, min_size=count, max_size=count)
    return st.none() | st.text(max_size=5) | st.integers() | wrong_count | wrong_value


BAD: dict[str, st.SearchStrategy[Any]] = {
    "num_channels": not_positive_ints,
    "image_size": not_sizes,
    "patch_size": not_sizes,
    "hidden_sizes": not_lists_of(3) | st.lists(st.integers(1, 50).map(lambda n: 4 * n + 1), min_size=3, max_size=3),
    "neck_hidden_sizes": not_lists_of(7),
    "num_attention_heads": not_positive_ints,
    "mlp_ratio": not_numbers | st.floats(max_value=0) | st.just(float("inf")),
    "expand_ratio": not_numbers | st.floats(max_value=0) | st.just(float("inf")),
    "hidden_act": (st.none() | st.integers() | st.text()).filter(lambda name: name not in ACTIVATIONS),
    "conv_kernel_size": not_positive_ints | st.integers(1, 50).map(lambda n: 2 * n),
    "output_stride": not_numbers | st.floats() | st.integers().filter(lambda n: n not in (8, 16, 32)),
    "hidden_dropout_prob": not_probabilities,
    "attention_probs_dropout_prob": not_probabilities,
    "classifier_dropout_prob": not_probabilities,
    "aspp_dropout_prob": not_probabilities,
    "initializer_range": not_numbers | st.floats(max_value=0, exclude_max=True) | st.just(float("nan")),
    "layer_norm_eps": not_numbers | st.floats(max_value=0, exclude_max=True) | st.just(float("nan")),
    "qkv_bias": not_bools,
    "aspp_out_channels": not_positive_ints,
    "atrous_rates": not_lists_of(3),
    "semantic_loss_ignore_index": st.none() | st.text(max_size=5) | st.floats() | st.booleans(),
    "num_labels": st.text(max_size=5) | st.floats() | st.booleans() | st.integers(max_value=-1),
    "problem_type": st.integers() | st.text(),
    "return_dict": not_bools,
    "output_hidden_states": not_bools,
}


@settings(max_examples=200, deadline=None)
@given(data=st.data(), field=st.sampled_from(sorted(BAD)))
def test_bad_values_are_refused_by_name(data: st.DataObject, field: str) -> None:
    value = data.draw(BAD[field])
    with pytest.raises(ValueError, match=rf"^MobileViTConfig\.{field}: expected .+, got .+") as error:
        MobileViTConfig(**{field: value})
    assert str(error.value).endswith(f"got {value!r}")
