"""A model's kernels in one call of the CUDA library, emulated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from emulator import run
from mobilevit_fast.acceleration.programs import Program
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.models import MobileViTForImageClassification
from mobilevit_fast.ops.program import KERNELS
from testing.pairs import give_real_signal
from testing.paths import REPOSITORY

PROGRAM: Any = torch.ops.mobilevit_fast.program.cuda


def test_both_sides_know_the_same_kernels_in_one_order() -> None:
    header = (REPOSITORY / "csrc/cuda/program/program.h").read_text(encoding="utf-8")
    (names,) = re.findall(r"kProgramKernels\[\] = \{(.*?)\}", header, re.DOTALL)
    assert tuple(re.findall(r'"(\w+)"', names)) == KERNELS


@pytest.fixture
def hopper() -> Iterator[None]:
    with run.chip(capability=90):
        yield


def model_and_images() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = MobileViTForImageClassification(MobileViTConfig.preset("xx_small")).eval()
    give_real_signal(model)
    return mvf.accelerate(model.half(), backend="cuda"), torch.randn(2, 3, 32, 32).half()


def recorded(model: nn.Module, x: Tensor) -> tuple[Program, Tensor]:
    with torch.no_grad():
        for _ in range(2):
            logits = model(x).logits
    (program,) = model._mvf_layouts.programs._programs.values()  # type: ignore[union-attr]
    return program, logits


def test_it_is_what_its_steps_are(hopper: None) -> None:
    """Of both kinds of convolution, of one and of two images, and all other kernels of a model."""
    model, x = model_and_images()
    program, expected = recorded(model, x)
    assert program.encoded is not None
    run.take_launches()
    with torch.no_grad():
        logits = model(x).logits
    launches = run.take_launches()
    assert torch.equal(logits, expected)
    assert len(launches) >= len(program.steps) == 18
    assert torch.equal(program._by_steps(x), expected)
    assert [launch.kernel for launch in run.take_launches()] == [launch.kernel for launch in launches]


def test_numbers_that_are_no_program_are_refused(hopper: None) -> None:
    model, x = model_and_images()
    encoded = recorded(model, x)[0].encoded
    assert encoded is not None
    packed, code = encoded
    for wrong, message in [
        ([], "expected a program that is whole, got 0 numbers"),
        ([0], "expected a place for the images, got none"),
        ([-1], "expected a number of less than 1, got -1"),
        (code[:-1], f"expected a program that is whole, got {len(code) - 1} numbers"),
        ([code[0], 9, *code[2:]], "expected a number of less than 4, got 9"),
        ([*code[:2], 99, *code[3:]], f"expected a number of less than {code[0]}, got 99"),
        ([*code[:3], 1 << 40, *code[4:]], "expected a number of less than"),
        ([*code[:1], 1, *code[2:]], "expected a number of less than"),  # arguments of another kernel
    ]:
        with pytest.raises(RuntimeError, match=message):
            PROGRAM(x, packed, wrong)
    with pytest.raises(RuntimeError, match=r"expected a number of less than|conv2d_bias_act: expected"):
        PROGRAM(x, packed[1:], code)
    with pytest.raises(RuntimeError, match=r"conv2d_bias_act: expected input of type torch\.float16"):
        PROGRAM(x.float(), packed, code)


def test_other_kernels_go_by_steps() -> None:
    model, x = model_and_images()
    mvf.accelerate(model, backend="reference")
    program, expected = recorded(model, x)
    assert program.encoded is None
    with torch.no_grad():
        assert torch.equal(model(x).logits, expected)
