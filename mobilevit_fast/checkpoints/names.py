"""Parameter names of MobileViT in three code bases, as one table, and translation between them.

| naming | code base | transformer projections | segmentation |
|---|---|---|---|
| `huggingface` | transformers and this package | query, key and value apart | `segmentation_head.` |
| `cvnets` | apple/ml-cvnets, the authors' code | joined in `qkv_proj` | `seg_head.`, backbone in `encoder.` |
| `timm` | timm's `mobilevit_{xxs,xs,s}` | joined in `attn.qkv` | none |

All three describe the same tensors, so a translation renames, splits or joins, and never changes a value.
Layouts agree too: a joined projection is the rows of query, key and value, in this order.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from mobilevit_fast.checkpoints.errors import CheckpointError, first_few
from mobilevit_fast.config.size import TRANSFORMER_DEPTHS

Naming = Literal["huggingface", "cvnets", "timm"]
NAMINGS: tuple[str, ...] = get_args(Naming)

MOBILENET_BLOCKS = (1, 3)
"""Inverted residuals in the two stages without transformer (arXiv 2110.02178, table 4)."""

# Parts of a state dict that are there as a whole or not at all. The trunk has to be there.
Group = Literal["trunk", "qkv bias", "expansion", "classifier", "segmentation head", "batch counter"]


@dataclass(frozen=True)
class Entry:
    """One tensor: its names, and the group it belongs to.

    `huggingface` has three names (query, key, value) where the other code bases hold one joined tensor.
    `timm` is None for what timm has no model for.
    """

    huggingface: tuple[str, ...]
    cvnets: str
    timm: str | None
    group: Group

    def names(self, naming: str) -> tuple[str, ...]:
        """The entry's names in `naming`: empty where this code base has none."""
        if naming == "huggingface":
            return self.huggingface
        name = self.cvnets if naming == "cvnets" else self.timm
        return () if name is None else (name,)


# Rows are (huggingface, cvnets, timm).
_CONVOLUTION = ("convolution", "block.conv", "conv")
_NORMALIZATION = ("normalization", "block.norm", "bn")
_INVERTED_RESIDUAL = (
    ("expand_1x1", "exp_1x1", "conv1_1x1"),
    ("conv_3x3", "conv_3x3", "conv2_kxk"),
    ("reduce_1x1", "red_1x1", "conv3_1x1"),
)
_MOBILEVIT_BLOCK = (
    ("conv_kxk", "local_rep.conv_3x3", "conv_kxk"),
    ("conv_projection", "conv_proj", "conv_proj"),
    ("fusion", "fusion", "conv_fusion"),
)
_TRANSFORMER_LAYER = (
    ("layernorm_before", "pre_norm_mha.0", "norm1"),
    ("attention.output.dense", "pre_norm_mha.1.out_proj", "attn.proj"),
    ("layernorm_after", "pre_norm_ffn.0", "norm2"),
    ("intermediate.dense", "pre_norm_ffn.1", "mlp.fc1"),
    ("output.dense", "pre_norm_ffn.4", "mlp.fc2"),
)
_ASPP = (
    *((f"convs.{branch}", f"convs.{branch}") for branch in range(4)),
    ("convs.4.conv_1x1", "convs.4.aspp_pool.conv_1x1"),
    ("project", "project"),
)

# What models with a head put before the names of their backbone.
_BACKBONE = {"huggingface": "mobilevit.", "cvnets": "encoder."}
_CVNETS_ASPP = "seg_head.aspp.aspp_layer"

# ml-cvnets 0.1 wrapped the last convolution of its segmentation head in a Sequential of this name.
_CVNETS_OLDER_NAMES = {"seg_head.classifier.classifier.": "seg_head.classifier."}
# timm's models with features_only=True keep their stages side by side.
_TIMM_FEATURES = re.compile(r"^stages_(\d+)\.")
# A second head that ml-cvnets trains beside the first and never runs afterwards.
_CVNETS_TRAINING_ONLY = "seg_head.aux_head."


def _conv_norm(huggingface: str, cvnets: str, timm: str | None, group: Group = "trunk") -> Iterator[Entry]:
    """A convolution without bias, and the batch normalisation that follows it."""

    def entry(part: tuple[str, str, str], parameter: str, group: Group) -> Entry:
        return Entry(
            (f"{huggingface}.{part[0]}.{parameter}",),
            f"{cvnets}.{part[1]}.{parameter}",
            None if timm is None else f"{timm}.{part[2]}.{parameter}",
            group,
        )

    yield entry(_CONVOLUTION, "weight", group)
    for parameter in ("weight", "bias", "running_mean", "running_var"):
        yield entry(_NORMALIZATION, parameter, group)
    yield entry(_NORMALIZATION, "num_batches_tracked", "batch counter")


def _affine(huggingface: str, cvnets: str, timm: str | None, group: Group = "trunk") -> Iterator[Entry]:
    """A layer normalisation, a linear layer or a convolution with bias."""
    for parameter in ("weight", "bias"):
        timm_name = None if timm is None else f"{timm}.{parameter}"
        yield Entry((f"{huggingface}.{parameter}",), f"{cvnets}.{parameter}", timm_name, group)


def _inverted_residual(huggingface: str, cvnets: str, timm: str) -> Iterator[Entry]:
    for ours, theirs, timms in _INVERTED_RESIDUAL:
        yield from _conv_norm(f"{huggingface}.{ours}", f"{cvnets}.block.{theirs}", f"{timm}.{timms}")


def _transformer_layer(huggingface: str, cvnets: str, timm: str) -> Iterator[Entry]:
    groups: tuple[tuple[str, Group], ...] = (("weight", "trunk"), ("bias", "qkv bias"))
    for parameter, group in groups:
        projections = ("query", "key", "value")
        yield Entry(
            tuple(f"{huggingface}.attention.attention.{projection}.{parameter}" for projection in projections),
            f"{cvnets}.pre_norm_mha.1.qkv_proj.{parameter}",
            f"{timm}.attn.qkv.{parameter}",
            group,
        )
    for ours, theirs, timms in _TRANSFORMER_LAYER:
        yield from _affine(f"{huggingface}.{ours}", f"{cvnets}.{theirs}", f"{timm}.{timms}")


def _mobilevit_block(stage: int, depth: int) -> Iterator[Entry]:
    ours, theirs, timms = f"encoder.layer.{stage}", f"layer_{stage + 1}", f"stages.{stage}"
    yield from _inverted_residual(f"{ours}.downsampling_layer", f"{theirs}.0", f"{timms}.0")
    for part in _MOBILEVIT_BLOCK:
        yield from _conv_norm(f"{ours}.{part[0]}", f"{theirs}.1.{part[1]}", f"{timms}.1.{part[2]}")
    yield Entry(
        (f"{ours}.conv_1x1.convolution.weight",),
        f"{theirs}.1.local_rep.conv_1x1.block.conv.weight",
        f"{timms}.1.conv_1x1.weight",
        "trunk",
    )
    for layer in range(depth):
        yield from _transformer_layer(
            f"{ours}.transformer.layer.{layer}",
            f"{theirs}.1.global_rep.{layer}",
            f"{timms}.1.transformer.{layer}",
        )
    yield from _affine(f"{ours}.layernorm", f"{theirs}.1.global_rep.{depth}", f"{timms}.1.norm")


@cache
def entries() -> tuple[Entry, ...]:
    """Every tensor a MobileViT can have, names of the backbone without the prefix a head gives them."""

    def generate() -> Iterator[Entry]:
        yield from _conv_norm("conv_stem", "conv_1", "stem")
        for stage, blocks in enumerate(MOBILENET_BLOCKS):
            for block in range(blocks):
                yield from _inverted_residual(
                    f"encoder.layer.{stage}.layer.{block}",
                    f"layer_{stage + 1}.{block}",
                    f"stages.{stage}.{block}",
                )
        for stage, depth in enumerate(TRANSFORMER_DEPTHS, start=len(MOBILENET_BLOCKS)):
            yield from _mobilevit_block(stage, depth)
        yield from _conv_norm("conv_1x1_exp", "conv_1x1_exp", "final_conv", "expansion")
        yield from _affine("classifier", "classifier.fc", "head.fc", "classifier")
        for ours, theirs in _ASPP:
            yield from _conv_norm(
                f"segmentation_head.aspp.{ours}", f"{_CVNETS_ASPP}.{theirs}", None, "segmentation head"
            )
        yield from _affine(
            "segmentation_head.classifier.convolution",
            "seg_head.classifier.block.conv",
            None,
            "segmentation head",
        )

    return tuple(generate())


def is_head(name: str) -> bool:
    """Whether a Hugging Face name belongs to a head and not to the backbone."""
    return name.startswith(("classifier.", "segmentation_head."))


def is_known_head(name: str) -> bool:
    """Whether it belongs to a head of this package's and transformers' models, which a backbone can do without."""
    return is_head(name) and name in _table_names("huggingface")


def is_known_expansion(name: str) -> bool:
    """Whether it belongs to the last convolution, which a backbone can do without as well."""
    return name.startswith("conv_1x1_exp.") and name in _table_names("huggingface")


def _bare(name: str, naming: str) -> str:
    """A name as it stands in the table: without the prefix of the backbone, in today's spelling."""
    if naming == "cvnets":
        for older, newer in _CVNETS_OLDER_NAMES.items():
            if name.startswith(older):
                return newer + name.removeprefix(older)
    if naming == "timm":
        name = _TIMM_FEATURES.sub(r"stages.\1.", name)
    return name.removeprefix(_BACKBONE.get(naming, ""))


@cache
def _table_names(naming: str) -> frozenset[str]:
    return frozenset(name for entry in entries() for name in entry.names(naming))


def detect_naming(keys: Iterable[str]) -> Naming:
    """Which code base wrote these parameter names.

    Args:
        keys: names of a state dict, without wrappers such as `module.`.

    Raises:
        CheckpointError: when hardly any name belongs to a MobileViT.
    """
    keys = list(keys)
    hits = {naming: sum(_bare(key, naming) in _table_names(naming) for key in keys) for naming in NAMINGS}
    best = max(hits, key=lambda naming: hits[naming])
    # Sibling models (MobileViTv2, MobileNetV2) share the names of a stem and of some inverted residuals.
    if hits[best] * 2 < len(keys) or hits[best] == 0:
        raise CheckpointError(
            "not a MobileViT: expected names such as mobilevit.conv_stem.convolution.weight (huggingface), "
            "conv_1.block.conv.weight (cvnets) or stem.conv.weight (timm), "
            f"got {first_few(keys) if keys else 'no tensors'}"
        )
    return best  # type: ignore[return-value]


def to_huggingface(state_dict: Mapping[str, Tensor], naming: str, unused: list[str] | None = None) -> dict[str, Tensor]:
    """Rename a state dict from `naming` to Hugging Face's names; split joined projections.

    Args:
        state_dict: tensors under the names of `naming`, every one of which is used exactly once. The second head of
            ml-cvnets (`seg_head.aux_head.`), which serves training alone, is left out.
        naming: "huggingface" (returned as it is), "cvnets" or "timm".
        unused: takes the names that are unknown, which are then no error. Their tensors are left out.

    Returns:
        The tensors under names with the prefix `mobilevit.` on the backbone, as models with a head have them.

    Raises:
        CheckpointError: a name is unknown, or the rest of its group is missing.
    """
    _check_naming(naming)
    if naming == "huggingface":
        return dict(state_dict)
    if naming == "cvnets":
        state_dict = {name: t for name, t in state_dict.items() if not name.startswith(_CVNETS_TRAINING_ONLY)}
    result: dict[str, Tensor] = {}
    for entry, tensors in _match(state_dict, naming, unused):
        if len(entry.huggingface) == 3:
            tensors = _split(tensors[0], entry.names(naming)[0])
        for name, tensor in zip(entry.huggingface, tensors, strict=True):
            result[name if is_head(name) else _BACKBONE["huggingface"] + name] = tensor
    return result


def from_huggingface(state_dict: Mapping[str, Tensor], naming: str) -> dict[str, Tensor]:
    """Rename a state dict with Hugging Face's names to `naming`; join query, key and value.

    Args:
        state_dict: tensors of any of this package's or transformers' MobileViT classes.
        naming: "huggingface" (returned as it is), "cvnets" or "timm". Models with `qkv_bias=False` have no
            counterpart in the code of ml-cvnets and timm, although their names can be written.

    Raises:
        CheckpointError: a name is unknown, the rest of its group is missing, or timm has no such model.
    """
    _check_naming(naming)
    if naming == "huggingface":
        return dict(state_dict)
    result: dict[str, Tensor] = {}
    for entry, tensors in _match(state_dict, "huggingface"):
        names = entry.names(naming)
        if not names:
            raise CheckpointError(
                f"{naming} has no names for a segmentation model ({entry.huggingface[0]}): "
                "expected naming huggingface or cvnets"
            )
        result[names[0]] = torch.cat(tensors) if len(tensors) == 3 else tensors[0]
    if naming == "cvnets" and any(name.startswith("seg_head.") for name in result):
        return {n if n.startswith("seg_head.") else _BACKBONE["cvnets"] + n: t for n, t in result.items()}
    return result


def _check_naming(naming: str) -> None:
    if naming not in NAMINGS:
        raise CheckpointError(f"naming: expected one of {', '.join(NAMINGS)}, got {naming!r}")


def _match(
    state_dict: Mapping[str, Tensor], naming: str, unused: list[str] | None = None
) -> Iterator[tuple[Entry, list[Tensor]]]:
    """Pair every entry that is there with its tensors; nothing may be missing, nor be left over but for `unused`."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        bare = _bare(name, naming)
        if bare in tensors:
            raise CheckpointError(f"{naming} checkpoint: two tensors for {bare}, one of them {name}")
        tensors[bare] = tensor

    leftover = [name for name in state_dict if _bare(name, naming) not in _table_names(naming)]
    found = {entry.group for entry in entries() if any(name in tensors for name in entry.names(naming))}
    missing = [
        name
        for entry in entries()
        if entry.group == "trunk" or (entry.group in found and entry.group != "batch counter")
        for name in entry.names(naming)
        if name not in tensors
    ]
    if unused is not None and not missing:
        unused += leftover
    elif leftover or missing:
        problems = [f"{len(missing)} missing ({first_few(missing)})"] if missing else []
        problems += [f"{len(leftover)} unknown ({first_few(leftover)})"] if leftover else []
        raise CheckpointError(
            f"{naming} checkpoint does not fit MobileViT with {MOBILENET_BLOCKS} inverted residuals and "
            f"{TRANSFORMER_DEPTHS} transformer layers: {'; '.join(problems)}"
        )
    for entry in entries():
        names = entry.names(naming)
        if names and names[0] in tensors:
            yield entry, [tensors[name] for name in names]


def _split(joined: Tensor, name: str) -> list[Tensor]:
    if joined.ndim == 0 or joined.shape[0] % 3:
        raise CheckpointError(f"{name}: expected query, key and value of equal height, got shape {tuple(joined.shape)}")
    # Copies: views of one storage could not be saved on their own, and would keep the whole of it alive.
    return [part.clone() for part in joined.chunk(3)]
