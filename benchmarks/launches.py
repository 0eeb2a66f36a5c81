"""Launches that the Triton kernel of an operator would make, recorded in place of running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mobilevit_fast.kernels.triton.launch import Launch, instead_of_launches
from mobilevit_fast.ops import OPS


def recorded_launches(op: str, arguments: Sequence[Any]) -> list[Launch]:
    """All launches for these arguments of the operator's schema, which may be without values (device "meta")."""
    launches: list[Launch] = []
    with instead_of_launches(launches.append):
        OPS[op].call_python("triton", arguments)
    return launches
