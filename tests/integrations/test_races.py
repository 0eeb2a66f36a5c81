"""Models that are accelerated and restored while others call them, and what is left when they are gone."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import mobilevit_fast as mvf
from mobilevit_fast.acceleration.class_swap import give_back
from mobilevit_fast.acceleration.fused import Fused
from testing.tiers import thorough
from testing.tolerance import close
from tests.integrations import zoo


@pytest.mark.parametrize("name", [thorough("native"), thorough("transformers"), "timm", "native-segmentation"])
def test_calls_while_it_is_accelerated_and_restored(name: str) -> None:
    model, x = zoo.SMALL[name](), zoo.images(1, 32, 32)
    expected = zoo.run(model, x)
    errors: list[BaseException] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            try:
                close(zoo.run(model, x), expected)
            except BaseException as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(12):
        mvf.accelerate(model)
        if i % 3 == 1:
            model.eval()
        mvf.restore(model)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["native", "timm", "native-backbone"])
def test_a_call_that_began_before_it_was_restored_ends(name: str, dtype: torch.dtype | None) -> None:
    """At the moment that shows it: the class is given back while the module's forward is about to look at itself."""
    model, x = zoo.SMALL[name](), zoo.images(1)
    expected = zoo.run(model, x)
    mvf.accelerate(model, compute_dtype=dtype)
    accelerated = zoo.run(model, x)
    fused = [m for m in model.modules() if isinstance(m, Fused) or m is model]
    for module in fused:
        begun = type(module).forward
        give_back(module)

        def forward(*args: object, begun: Callable[..., object] = begun, module: nn.Module = module) -> object:
            return begun(module, *args)

        module.__dict__["forward"] = forward
    result = zoo.run(model, x)
    assert result.shape == accelerated.shape
    close(result, expected)


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _accelerated(model: nn.Module) -> None:
    zoo.run(mvf.accelerate(model), zoo.images(1))


def _restored(model: nn.Module) -> None:
    _accelerated(model)
    mvf.restore(model)


def _within(model: nn.Module) -> None:
    with mvf.accelerated(model, compute_dtype=torch.bfloat16):
        zoo.run(model, zoo.images(1))


def _planned(model: nn.Module) -> None:
    str(mvf.plan(model))


def _reported(model: nn.Module) -> None:
    _accelerated(model)
    str(mvf.report(model))


def _refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="include"):
        mvf.accelerate(model, include=["no such region"])


def _twin(model: nn.Module) -> None:
    Fused.from_module(model.mobilevit.encoder.layer[0].layer[0])


@pytest.mark.parametrize(
    "use", [_accelerated, _restored, _within, _planned, _reported, _refused, _twin], ids=lambda use: use.__name__[1:]
)
@pytest.mark.usefixtures("without_garbage_collection")
def test_a_deleted_model_is_gone_at_once(use: Callable[[nn.Module], None]) -> None:
    model = zoo.SMALL["native"]()
    parts = [weakref.ref(module) for module in model.modules()]
    use(model)
    del model
    assert not any(part() is not None for part in parts)


def test_so_is_the_first_one_of_a_process() -> None:
    """What is imported late must not keep the frames of whoever asked first."""
    code = (
        "import gc, weakref, mobilevit_fast as mvf\n"
        "gc.disable()\n"
        "model = mvf.MobileViTForImageClassification(mvf.MobileViTConfig.preset('xx_small')).eval()\n"
        "mvf.report(mvf.accelerate(model)), mvf.plan(model)\n"
        "parts = [weakref.ref(module) for module in model.modules()]\n"
        "del model\n"
        "assert not any(part() is not None for part in parts)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
