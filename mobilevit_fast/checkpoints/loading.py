"""Weights of a checkpoint into a model: which are missing, left over or of another shape, and one type for all."""

import functools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from mobilevit_fast.checkpoints.errors import CheckpointError, first_few
from mobilevit_fast.checkpoints.names import is_head, is_known_expansion, is_known_head
from mobilevit_fast.checkpoints.tensors import check_tensors

logger = logging.getLogger(__name__)

_NAMES_OF_UNUSED = 100
"""As many tensors that have no place are named, which are a model's; a file of other things may have thousands."""


def load_weights(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    strict: bool = True,
    ignore_mismatched_sizes: bool = False,
    allow_unused: bool = False,
    unused: Iterable[str] = (),
    source: str = "state dict",
    dtype: torch.dtype | None = None,
) -> None:
    """Put a state dict with Hugging Face's names into a model, which then has one floating point type.

    The prefix `mobilevit.` of the backbone may be there or not, on either side. A model without head leaves the tensors
    of the heads of this package aside, and those of the last convolution if it was built with `expand_output=False`;
    those of a head of somebody's own are unknown names as any other.

    Args:
        model: one of this package's models.
        state_dict: tensors by name. They become the model's own, without a copy where they have the model's type.
        strict: refuse missing and unknown names and differing shapes; else log them and load the rest.
        ignore_mismatched_sizes: log differing shapes alone and load the rest.
        allow_unused: log unknown names alone, each of them, and load the rest.
        unused: further names that were in the file and are not in the state dict.
        source: what errors call the state dict.
        dtype: floating point type of the model; None takes the widest of the state dict, to which the others are cast,
            and logs that. float64 is that only where most elements have it. Whole numbers stay what they are.

    Raises:
        CheckpointError: as described under `strict`, weights that are not floating-point, or tensors that are sparse,
            nested, quantised, without values, or more than the limits allow.
    """
    try:
        check_tensors(state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    own = model.state_dict()
    prefix = "mobilevit." if any(name.startswith("mobilevit.") for name in own) else ""
    has_head = any(is_head(name) for name in own)
    given: dict[str, Tensor] = {}
    theirs: dict[str, str] = {}
    for name, tensor in state_dict.items():
        bare = name.removeprefix("mobilevit.")
        if not prefix and not has_head and (is_known_head(bare) or (is_known_expansion(bare) and bare not in own)):
            continue
        place = bare if is_head(bare) else prefix + bare
        given[place], theirs[place] = tensor, name

    # Counters of batches matter to no result (momentum is fixed), and converted files often lack them.
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [theirs[name] for name in given if name not in own] + list(unused)
    mismatched = [name for name in own if name in given and given[name].shape != own[name].shape]
    shapes = [f"{name} has shape {tuple(given[name].shape)}, expected {tuple(own[name].shape)}" for name in mismatched]
    problems = [f"{len(missing)} missing ({first_few(missing)})"] if missing else []
    problems += [f"{len(unknown)} unknown ({first_few(unknown, _NAMES_OF_UNUSED)})"] if unknown else []
    problems += [*shapes[:1], *([f"{len(shapes) - 1} more shapes differ"] if len(shapes) > 1 else [])]
    if problems:
        message = f"{source} does not fit {type(model).__name__}: {'; '.join(problems)}"
        # Whoever allows one kind of difference is told of the next.
        if strict and missing:
            raise CheckpointError(f"{message} (strict=False loads the rest)")
        if strict and unknown and not allow_unused:
            raise CheckpointError(f"{message} (allow_unused=True leaves out what is unknown)")
        if strict and mismatched and not ignore_mismatched_sizes:
            raise CheckpointError(f"{message} (ignore_mismatched_sizes=True loads the rest)")
        logger.warning("%s; left as they were", message)
    fitting = {name: given[name] for name in given if name in own and name not in mismatched}
    for name, tensor in fitting.items():
        if tensor.is_floating_point() != own[name].is_floating_point():
            raise CheckpointError(f"{source}: {name}: expected dtype like {own[name].dtype}, got {tensor.dtype}")
    floating = {name: tensor for name, tensor in fitting.items() if tensor.is_floating_point()}
    if dtype is None and floating:
        dtype = _common_dtype(floating.values())
        others = sum(tensor.dtype != dtype for tensor in floating.values())
        if others:
            message = "%s: %d tensors of another type than %s were cast to it"
            logger.warning(message, source, others, str(dtype).removeprefix("torch."))
    if dtype is not None:
        model.to(dtype)  # what is not in the file follows the dtype of what is
        fitting |= {name: tensor.to(dtype) for name, tensor in floating.items()}
    model.load_state_dict(fitting, strict=False, assign=True)


def _common_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    """The narrowest type that holds what all of these hold; a few of float64 among others make none of it."""
    numbers: Counter[torch.dtype] = Counter()
    for tensor in tensors:
        numbers[tensor.dtype] += tensor.numel()
    if numbers.most_common(1)[0][0] == torch.float64:
        return torch.float64
    return functools.reduce(torch.promote_types, numbers.keys() - {torch.float64})
