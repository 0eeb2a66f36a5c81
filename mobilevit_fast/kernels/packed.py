"""Kinds of packed weights, told apart by the shape of the tensor that holds them (``csrc/common/packed.h``)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

PACKING_VERSION = "2"
"""Grows with every change of the order in which a kernel reads its weights."""

_LEAST_PIECES, _LENGTHS = 16, 176  # so that no two kinds of this version meet


def row_bytes(op: str, order: str) -> int:
    """Bytes of a row of an operator's packed weights, by the name of their order: no two kinds have rows of one length.

    So the shape says what weights were packed for, wherever they lie, and those of another kernel are refused unread.
    """
    value = 2166136261  # FNV-1a
    for letter in f"{op} {order} {PACKING_VERSION}".encode():
        value = (value ^ letter) * 16777619 % 2**32
    return 16 * (_LEAST_PIECES + value % _LENGTHS)


def in_rows(words: Tensor, like: Tensor, op: str, order: str) -> Tensor:
    """Packed weights (N,) of float32 words as (rows, elements) of ``like``'s type, the last row padded with zeros."""
    row = row_bytes(op, order)
    filled = F.pad(words, (0, -words.numel() % (row // words.element_size())))
    return filled.view(like.dtype).view(-1, row // like.element_size())
