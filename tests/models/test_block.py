"""Unfolding and folding of the MobileViT block, pixel by pixel."""

import pytest
import torch
from torch import nn

from mobilevit_fast.config.size import make_divisible
from mobilevit_fast.models import MobileViTEncoder, MobileViTInvertedResidual, MobileViTLayer
from testing.pairs import give_real_signal, images, tiny_config


def make_block(patch_size: int | list[int]) -> MobileViTLayer:
    config = tiny_config(patch_size=patch_size)
    return MobileViTLayer(config, 6, 10, stride=1, hidden_size=8, num_stages=1)


@pytest.mark.parametrize("patch_size", [1, 2, 3, [2, 4], [3, 1]])
def test_a_sequence_is_a_position_inside_the_patch(patch_size: int | list[int]) -> None:
    block = make_block(patch_size)
    height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    features = torch.randn(2, 8, 3 * height, 4 * width)

    patches, shape = block.unfolding(features)

    assert patches.shape == (2 * height * width, 12, 8)
    for image in range(2):
        for row in range(height):
            for column in range(width):
                sequence = patches[(image * height + row) * width + column]
                for token in range(12):
                    pixel = features[image, :, token // 4 * height + row, token % 4 * width + column]
                    assert torch.equal(sequence[token], pixel)
    assert torch.equal(block.folding(patches, shape), features)


@pytest.mark.parametrize("size", [(7, 8), (6, 9), (1, 1), (5, 5)])
def test_other_sizes_are_resized_to_the_next_multiple_and_back(size: tuple[int, int]) -> None:
    block = make_block([2, 4])
    features = torch.randn(1, 8, *size)
    larger = (size[0] + size[0] % 2, -(-size[1] // 4) * 4)
    resized = nn.functional.interpolate(features, larger, mode="bilinear", align_corners=False)

    patches, shape = block.unfolding(features)

    assert torch.equal(patches, block.unfolding(resized)[0])
    back = nn.functional.interpolate(resized, size, mode="bilinear", align_corners=False)
    assert torch.equal(block.folding(patches, shape), back)


def test_pair_of_patch_sizes_is_height_and_width() -> None:
    block = make_block([2, 4])
    assert (block.patch_height, block.patch_width) == (2, 4)


def test_patches_of_one_pixel_attend_everywhere_and_whole_image_patches_nowhere() -> None:
    """With one pixel per patch every pixel reaches every other; with one patch per image, only itself."""
    for patch_size, reach in [(1, 16), (4, 1), (2, 4)]:
        block = make_block(patch_size)
        give_real_signal(block)
        features = torch.randn(1, 8, 4, 4, requires_grad=True)
        patches, shape = block.unfolding(features)
        mixed = block.folding(block.eval().transformer(patches), shape)
        (gradient,) = torch.autograd.grad(mixed[0, :, 1, 2].square().sum(), features)
        assert (gradient[0].abs().sum(dim=0) > 0).sum() == reach


@pytest.mark.parametrize(("output_stride", "sizes"), [(32, [8, 4, 2]), (16, [8, 4, 4]), (8, [8, 8, 8])])
def test_output_stride(output_stride: int, sizes: list[int]) -> None:
    encoder = MobileViTEncoder(tiny_config(output_stride=output_stride)).eval()
    states = encoder(torch.zeros(1, 4, 32, 32), output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in states[2:]] == sizes
    dilations = [layer.downsampling_layer.conv_3x3.convolution.dilation[0] for layer in encoder.layer[2:]]
    assert dilations == {32: [1, 1, 1], 16: [1, 1, 1], 8: [1, 1, 2]}[output_stride]


@pytest.mark.parametrize(("value", "rounded"), [(1, 8), (8, 8), (11, 16), (12, 16), (17, 16), (18, 24), (20, 24)])
def test_make_divisible_loses_at_most_a_tenth(value: int, rounded: int) -> None:
    assert make_divisible(value) == rounded


def test_stride_of_an_inverted_residual_is_one_or_two() -> None:
    with pytest.raises(ValueError, match=r"MobileViTInvertedResidual\.stride: expected 1 or 2, got 3"):
        MobileViTInvertedResidual(tiny_config(), 4, 4, stride=3)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"hidden_size: expected a multiple of num_attention_heads=4, got 6"):
        MobileViTLayer(tiny_config(), 6, 10, stride=1, hidden_size=6, num_stages=1)


def test_empty_batch_through_the_block() -> None:
    assert make_block(2).eval()(images(0, 4, 4)[:, :1].expand(0, 6, 4, 4)).shape == (0, 6, 4, 4)
