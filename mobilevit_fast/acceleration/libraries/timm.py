"""Rules for timm's MobileViT (``mobilevit_s``, ``mobilevit_xs``, ``mobilevit_xxs`` and variants of them)."""

from __future__ import annotations

import math
from typing import Any

import timm.layers as layers
import timm.models._features as features
import timm.models.byobnet as byobnet
import timm.models.mobilevit as mobilevit
import timm.models.vision_transformer as vision_transformer
from torch import Tensor, nn

from mobilevit_fast.acceleration.class_swap import Before
from mobilevit_fast.acceleration.fused import State, compute_input
from mobilevit_fast.acceleration.layouts import returns_no_image
from mobilevit_fast.acceleration.libraries.torch_modules import TORCH_CLASSES, activation_name, conv_parts
from mobilevit_fast.acceleration.parts import (
    ClassifierParts,
    ConvParts,
    InvertedResidualParts,
    MobileViTBlockParts,
    TransformerLayerParts,
    Unsupported,
)
from mobilevit_fast.acceleration.reading import check_heads, linear_classifier, require
from mobilevit_fast.acceleration.regions import ConvNormAct, InvertedResidual, MobileViTBlock
from mobilevit_fast.acceleration.regions.classifier_head import HeadOfModel
from mobilevit_fast.acceleration.rules import Rule

MODELS: tuple[type[nn.Module], ...] = (
    byobnet.ByobNet,
    features.FeatureDictNet,
    features.FeatureGetterNet,
    features.FeatureHookNet,
    features.FeatureListNet,
)
MARKERS: tuple[type[nn.Module], ...] = (mobilevit.MobileVitBlock,)
"""timm builds many models from the other classes; one that holds none of these is no MobileViT."""

_KNOWN = TORCH_CLASSES | {
    nn.AdaptiveMaxPool2d,
    layers.BatchNormAct2d,
    layers.ClassifierHead,
    layers.ConvNormAct,
    layers.DropBlock2d,
    layers.DropPath,
    layers.Mlp,
    layers.SelectAdaptivePool2d,
    *(kind for name, kind in vars(layers.adaptive_avgmax_pool).items() if "Pool" in name and isinstance(kind, type)),
    vision_transformer.Attention,
    vision_transformer.Block,
}


def _require_identity(module: Any, *names: str) -> None:
    for name in names:
        child = getattr(module, name, None)
        if child is not None and not isinstance(child, nn.Identity | layers.DropPath | layers.DropBlock2d):
            raise Unsupported(f"its {name} is a {type(child).__name__}, which the fused kernels do not have")


def _read_conv(module: Any) -> ConvParts:
    norm = module.bn
    _require_identity(module, "aa")
    if type(norm) is layers.BatchNormAct2d:
        _require_identity(norm, "drop")
        return conv_parts(module.conv, norm, norm.act, {})
    raise Unsupported(f"expected a BatchNormAct2d after the convolution, found a {type(norm).__name__}")


def _read_bottleneck(module: Any) -> InvertedResidualParts:
    _require_identity(module, "conv2b_kxk", "attn", "attn_last", "drop_path", "act", "shortcut")
    convs = (_read_conv(module.conv1_1x1), _read_conv(module.conv2_kxk), _read_conv(module.conv3_1x1))
    return InvertedResidualParts(*convs, module.shortcut is not None)


def _read_layer(layer: Any) -> TransformerLayerParts:
    attention, mlp = layer.attn, layer.mlp
    _require_identity(layer, "ls1", "ls2", "drop_path1", "drop_path2")
    _require_identity(attention, "q_norm", "k_norm", "norm", "gate")
    _require_identity(mlp, "norm")
    qkv, heads = require(nn.Linear, attention.qkv, "attn.qkv"), attention.num_heads
    outputs = qkv.out_features // 3
    total = getattr(attention, "attn_dim", outputs)  # not in timm's first versions
    check_heads(outputs, heads, ("attn.head_dim", attention.head_dim), ("attn.attn_dim", total))
    return TransformerLayerParts(
        norm1=require(nn.LayerNorm, layer.norm1, "norm1"),
        qkv=(qkv,),
        proj=require(nn.Linear, attention.proj, "attn.proj"),
        norm2=require(nn.LayerNorm, layer.norm2, "norm2"),
        fc1=require(nn.Linear, mlp.fc1, "mlp.fc1"),
        fc2=require(nn.Linear, mlp.fc2, "mlp.fc2"),
        activation=activation_name(mlp.act, {}),
        num_heads=heads,
    )


def _read_block(module: Any) -> MobileViTBlockParts:
    if module.conv_fusion is None:
        raise Unsupported("it has no fusion convolution (no_fusion=True)")
    if module.conv_kxk.conv.stride != (1, 1):
        raise Unsupported(f"its first convolution has stride {module.conv_kxk.conv.stride}")
    if module.patch_area != math.prod(module.patch_size):
        raise Unsupported(f"its patch_area is {module.patch_area}, not that of patch_size {tuple(module.patch_size)}")
    return MobileViTBlockParts(
        local=_read_conv(module.conv_kxk),
        conv_in=conv_parts(module.conv_1x1, None, None, {}),
        layers=tuple(_read_layer(layer) for layer in module.transformer),
        norm=require(nn.LayerNorm, module.norm, "norm"),
        conv_out=_read_conv(module.conv_proj),
        fusion=_read_conv(module.conv_fusion),
        patch_size=tuple(module.patch_size),
    )


def _read_classifier(model: Any) -> ClassifierParts:
    head = model.head
    require(layers.ConvNormAct, model.final_conv, "final_conv")
    require(layers.ClassifierHead, head, "head")
    classifier = linear_classifier(head.fc, "num_classes=0")
    pool = head.global_pool
    flattened = getattr(pool.pool, "flatten", False) or isinstance(pool.flatten, nn.Flatten)
    if pool.pool_type not in ("avg", "fast", "fastavg") or not flattened:
        raise Unsupported(f"its global pooling is {pool.pool_type!r}, not the mean")
    _require_identity(head, "flatten")
    return ClassifierParts(_read_conv(model.final_conv), classifier)


class ImageClassification(HeadOfModel):
    """timm's model with a fused head; ``forward_features`` and ``forward_head`` stay timm's."""

    @classmethod
    def around(cls, before: Before, module: Any, /, x: Tensor) -> Tensor:
        state: State | None = getattr(module, "_mvf", None)
        bounds = None if state is None else state.bounds_for(before.rule, module, x)
        if bounds is None:
            return before.forward(module, x)
        returns_no_image(module)
        features = module.stages(module.stem(x))  # (N, C, h, w)
        return bounds[cls.kind](compute_input(features))  # (N, K)


_BOTTLENECK_CHILDREN = (
    "shortcut",
    "conv1_1x1",
    "conv2_kxk",
    "conv2b_kxk",
    "attn",
    "conv3_1x1",
    "attn_last",
    "drop_path",
    "act",
)
_BLOCK_CHILDREN = ("conv_kxk", "conv_1x1", "transformer", "norm", "conv_proj", "conv_fusion")

RULES = [
    Rule(layers.ConvNormAct, ConvNormAct, _read_conv, ("conv", "bn", "aa"), frozenset(_KNOWN)),
    Rule(byobnet.BottleneckBlock, InvertedResidual, _read_bottleneck, _BOTTLENECK_CHILDREN, frozenset(_KNOWN)),
    Rule(mobilevit.MobileVitBlock, MobileViTBlock, _read_block, _BLOCK_CHILDREN, frozenset(_KNOWN)),
    Rule(byobnet.ByobNet, ImageClassification, _read_classifier, ("final_conv", "head"), frozenset(_KNOWN)),
]
