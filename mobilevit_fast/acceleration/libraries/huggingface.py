"""Rules for models with the class and attribute names of Hugging Face: transformers' and this package's own."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from mobilevit_fast.acceleration.bound import Bound
from mobilevit_fast.acceleration.class_swap import Before, original_class
from mobilevit_fast.acceleration.fused import State, compute_input
from mobilevit_fast.acceleration.layouts import returns_no_image
from mobilevit_fast.acceleration.libraries.torch_modules import TORCH_CLASSES, activation_name, conv_parts
from mobilevit_fast.acceleration.parts import (
    ASPPParts,
    ClassifierParts,
    ConvParts,
    InvertedResidualParts,
    MobileViTBlockParts,
    TransformerLayerParts,
    Unsupported,
)
from mobilevit_fast.acceleration.reading import check_heads, linear_classifier, require
from mobilevit_fast.acceleration.regions import ASPP, ConvNormAct, InvertedResidual, MobileViTBlock
from mobilevit_fast.acceleration.regions.classifier_head import HeadOfModel
from mobilevit_fast.acceleration.rules import Rule

_PART_CLASSES = (
    "MobileViTASPPPooling",
    "MobileViTAttention",
    "MobileViTConvLayer",
    "MobileViTIntermediate",
    "MobileViTModel",
    "MobileViTOutput",
    "MobileViTSelfAttention",
    "MobileViTSelfOutput",
    "MobileViTTransformer",
    "MobileViTTransformerLayer",
)


class DownsamplingMobileViTBlock(MobileViTBlock):
    """A block that begins with an inverted residual, called as the module it is; None where there is none."""

    calls_children = True

    @classmethod
    def run(cls, module: Any, bounds: dict[str, Bound], x: Tensor) -> Tensor:
        if module.downsampling_layer is not None:
            x = module.downsampling_layer(x)  # (N, C, H, W)
        return super().run(module, bounds, x)


def settings(model: Any) -> tuple[Any, ...]:
    """What the configurations of a model and its backbone ask for, unless an argument of the call does."""
    backbone = getattr(model, "mobilevit", model)
    return model.config.return_dict, model.config.output_hidden_states, backbone.config.output_hidden_states


class ImageClassification(HeadOfModel):
    """``MobileViTForImageClassification`` with a fused head; with labels, the original forward gives the loss."""

    output_class: type

    @classmethod
    def around(
        cls,
        before: Before,
        module: Any,
        /,
        pixel_values: Tensor | None = None,
        output_hidden_states: bool | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        state: State | None = getattr(module, "_mvf", None)
        bounds = None
        if state is not None and labels is None and pixel_values is not None:
            bounds = state.bounds_for(before.rule, module, pixel_values)
        if bounds is None or pixel_values is None:
            return before.forward(module, pixel_values, output_hidden_states, labels, return_dict, **kwargs)
        backbone = module.mobilevit
        if hasattr(backbone, "check_pixel_values"):  # this package's own model, whose errors speak of images
            backbone.check_pixel_values(pixel_values)
        if output_hidden_states is None:
            output_hidden_states = backbone.config.output_hidden_states
        if return_dict is None:
            return_dict = module.config.return_dict
        if not output_hidden_states:
            returns_no_image(module)
        embedded = backbone.conv_stem(pixel_values)  # (N, C, H/2, W/2)
        encoded = backbone.encoder(embedded, output_hidden_states=output_hidden_states, return_dict=False)
        logits = bounds[cls.kind](compute_input(encoded[0]))  # (N, K)
        hidden_states = encoded[1] if output_hidden_states else None
        if return_dict:
            return cls.output_class(loss=None, logits=logits, hidden_states=hidden_states)
        return (logits,) if hidden_states is None else (logits, hidden_states)


def models_of(library: ModuleType) -> tuple[type[nn.Module], ...]:
    """The models of a library whose classes carry Hugging Face's names."""
    names = ("MobileViTModel", "MobileViTForImageClassification", "MobileViTForSemanticSegmentation")
    return tuple(getattr(library, name) for name in names)


def rules_for(
    library: ModuleType, classification: type[ImageClassification], activations: Mapping[type[nn.Module], str]
) -> list[Rule]:
    """The rules for a library whose classes carry Hugging Face's names.

    Args:
        library: the module that holds the classes.
        classification: the fused class for ``MobileViTForImageClassification``, with the library's class of outputs.
        activations: the library's activation classes, by the operators' names.
    """
    classes = {name: getattr(library, name) for name in _PART_CLASSES}
    known = TORCH_CLASSES | frozenset(classes.values()) | frozenset(activations)

    def read_conv(module: Any) -> ConvParts:
        return conv_parts(module.convolution, module.normalization, module.activation, activations)

    def read_inverted_residual(module: Any) -> InvertedResidualParts:
        convs = (read_conv(module.expand_1x1), read_conv(module.conv_3x3), read_conv(module.reduce_1x1))
        return InvertedResidualParts(*convs, bool(module.use_residual))

    def read_layer(layer: Any) -> TransformerLayerParts:
        attention = layer.attention.attention
        qkv = tuple(require(nn.Linear, getattr(attention, name), name) for name in ("query", "key", "value"))
        heads = attention.num_attention_heads
        sizes = [(name, getattr(attention, name)) for name in ("attention_head_size", "all_head_size")]
        check_heads(qkv[0].out_features, heads, *sizes)
        return TransformerLayerParts(
            norm1=require(nn.LayerNorm, layer.layernorm_before, "layernorm_before"),
            qkv=qkv,
            proj=require(nn.Linear, layer.attention.output.dense, "attention.output.dense"),
            norm2=require(nn.LayerNorm, layer.layernorm_after, "layernorm_after"),
            fc1=require(nn.Linear, layer.intermediate.dense, "intermediate.dense"),
            fc2=require(nn.Linear, layer.output.dense, "output.dense"),
            activation=activation_name(layer.intermediate.intermediate_act_fn, activations),
            num_heads=heads,
        )

    def read_block(module: Any) -> MobileViTBlockParts:
        return MobileViTBlockParts(
            local=read_conv(module.conv_kxk),
            conv_in=read_conv(module.conv_1x1),
            layers=tuple(read_layer(layer) for layer in module.transformer.layer),
            norm=require(nn.LayerNorm, module.layernorm, "layernorm"),
            conv_out=read_conv(module.conv_projection),
            fusion=read_conv(module.fusion),
            patch_size=(module.patch_height, module.patch_width),
        )

    def read_classifier(module: Any) -> ClassifierParts:
        classifier = linear_classifier(module.classifier, "num_labels=0")
        return ClassifierParts(read_conv(module.mobilevit.conv_1x1_exp), classifier)

    def read_aspp(module: Any) -> ASPPParts:
        *convs, pooling = module.convs
        found = [original_class(branch) for branch in module.convs]
        expected = [classes["MobileViTConvLayer"]] * len(convs) + [classes["MobileViTASPPPooling"]]
        if len(convs) < 2 or found != expected:
            raise Unsupported(f"its branches are {', '.join(kind.__name__ for kind in found)}")
        pool = pooling.global_pool
        if not isinstance(pool, nn.AdaptiveAvgPool2d) or pool.output_size not in (1, (1, 1)):
            raise Unsupported(f"its pooling is {pool!r}, not the mean over the image")
        if not isinstance(module.dropout, nn.Dropout):
            raise Unsupported(f"its dropout is a {type(module.dropout).__name__}")
        pointwise, *atrous = map(read_conv, convs)
        return ASPPParts(pointwise, tuple(atrous), read_conv(pooling.conv_1x1), read_conv(module.project))

    conv_children = ("convolution", "normalization", "activation")
    residual_children = ("expand_1x1", "conv_3x3", "reduce_1x1")
    block_children = ("conv_kxk", "conv_1x1", "transformer", "layernorm", "conv_projection", "fusion")
    head_children = ("mobilevit.conv_1x1_exp", "dropout", "classifier")
    table: list[tuple[str, Any, Any, tuple[str, ...]]] = [
        ("MobileViTConvLayer", ConvNormAct, read_conv, conv_children),
        ("MobileViTInvertedResidual", InvertedResidual, read_inverted_residual, residual_children),
        ("MobileViTLayer", DownsamplingMobileViTBlock, read_block, block_children),
        ("MobileViTASPP", ASPP, read_aspp, ("convs", "project", "dropout")),
        ("MobileViTForImageClassification", classification, read_classifier, head_children),
    ]
    return [Rule(getattr(library, name), fused, read, absorbs, known) for name, fused, read, absorbs in table]
