"""What users do with a model after it was accelerated: save, copy, change, hook, train, compile, export, share."""

import copy
import io
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mobilevit_fast as mvf
from mobilevit_fast.acceleration.fused import Fused
from mobilevit_fast.kernels.triton.backend import INSTALLED
from testing.tiers import thorough_where
from testing.tolerance import assert_within_twice, close, rms_error
from tests.integrations import zoo

NAMES = list(zoo.SMALL)
CLASSIFIERS = ["native", "transformers", "timm"]


# A backbone is in every model, and transformers' classifier is built as the native one.
@pytest.fixture(params=thorough_where(NAMES, lambda name: name in ("native-backbone", "transformers")))
def model(request: pytest.FixtureRequest) -> nn.Module:
    return zoo.SMALL[request.param]()


@pytest.fixture(params=CLASSIFIERS)
def classifier(request: pytest.FixtureRequest) -> nn.Module:
    return zoo.SMALL[request.param]()


def is_fused(model: nn.Module) -> bool:
    return any(isinstance(module, Fused) for module in model.modules())


def test_state_dict_is_unchanged_and_loads_strictly(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mvf.accelerate(model)
    zoo.run(model, zoo.images())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    model.load_state_dict(before, strict=True)


def test_restore_gives_the_same_objects_and_bits(model: nn.Module) -> None:
    x = zoo.images()
    expected = zoo.run(model, x)
    objects = [(name, module, type(module), dict(module.__dict__)) for name, module in model.named_modules()]
    mvf.accelerate(model)
    assert is_fused(model)
    zoo.run(model, x)
    assert mvf.restore(model) is model
    for (name, module, kind, attributes), (new_name, new) in zip(objects, model.named_modules(), strict=True):
        assert (name, module, kind) == (new_name, new, type(new))
        assert attributes.keys() == new.__dict__.keys()
    assert torch.equal(zoo.run(model, x), expected)


def test_twice_is_once(model: nn.Module) -> None:
    mvf.accelerate(model)
    first, report = zoo.run(model, zoo.images()), mvf.report(model).to_list()
    kinds = [type(m) for m in model.modules()]
    mvf.accelerate(model)
    assert kinds == [type(m) for m in model.modules()]
    assert mvf.report(model).to_list() == report
    assert torch.equal(zoo.run(model, zoo.images()), first)


def test_scope(model: nn.Module) -> None:
    expected = zoo.run(model, zoo.images())
    with mvf.accelerated(model) as inside:
        assert inside is model
        assert is_fused(model)
    assert not is_fused(model)
    assert torch.equal(zoo.run(model, zoo.images()), expected)
    with pytest.raises(RuntimeError, match="inside"), mvf.accelerated(model):
        raise RuntimeError("inside")
    assert not is_fused(model)


def test_a_scope_within_an_accelerated_model_leaves_it_as_it_was() -> None:
    model = mvf.accelerate(zoo.SMALL["native"](), backend="reference")
    with mvf.accelerated(model, backend="auto", compute_dtype=torch.bfloat16):
        assert zoo.run(model, zoo.images()).dtype == torch.bfloat16
    assert zoo.run(model, zoo.images()).dtype == torch.float32
    assert {b for r in mvf.report(model).fused for b in r.backends.values()} == {"reference"}


def test_hooks_keep_working(classifier: nn.Module) -> None:
    calls: list[str] = []
    inner = next(
        m for m in classifier.modules() if type(m).__name__ in ("MobileViTInvertedResidual", "BottleneckBlock")
    )
    classifier.register_forward_pre_hook(lambda *_: calls.append("before the model"))
    inner.register_forward_hook(lambda *_: calls.append("registered before"))
    mvf.accelerate(classifier)
    inner.register_forward_hook(lambda *_: calls.append("registered after"))
    classifier.register_forward_hook(lambda *_: calls.append("after the model"))
    zoo.run(classifier, zoo.images())
    assert isinstance(inner, Fused)
    assert calls == ["before the model", "registered before", "registered after", "after the model"]


def test_a_hook_on_an_absorbed_module_fires_even_when_it_came_later(model: nn.Module) -> None:
    expected = zoo.run(model, zoo.images())
    mvf.accelerate(model)
    zoo.run(model, zoo.images())
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    seen: list[nn.Module] = []
    handles = [m.register_forward_hook(lambda module, *_: seen.append(module)) for m in convolutions]
    close(zoo.run(model, zoo.images()), expected)
    assert set(map(id, seen)) == set(map(id, convolutions))
    assert all("has a hook" in region.reason for region in mvf.report(model).skipped)
    for handle in handles:
        handle.remove()
    seen.clear()
    close(zoo.run(model, zoo.images()), expected)
    assert not seen


def test_deepcopy_is_fused_and_independent(model: nn.Module) -> None:
    mvf.accelerate(model)
    expected = zoo.run(model, zoo.images())
    twin = copy.deepcopy(model)
    assert is_fused(twin)
    assert torch.equal(zoo.run(twin, zoo.images()), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    assert not torch.equal(zoo.run(twin, zoo.images()), expected)
    assert torch.equal(zoo.run(model, zoo.images()), expected)


def test_pickle_round_trip(model: nn.Module) -> None:
    mvf.accelerate(model)
    expected = zoo.run(model, zoo.images())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert is_fused(loaded)
    assert torch.equal(zoo.run(loaded, zoo.images()), expected)
    assert len(file.getvalue()) < 1.5 * sum(t.nbytes for t in model.state_dict().values()) + 300_000
    assert not is_fused(mvf.restore(loaded))


def test_state_dict_file_round_trip(model: nn.Module, tmp_path: Path) -> None:
    mvf.accelerate(model)
    expected = zoo.run(model, zoo.images())
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not torch.equal(zoo.run(model, zoo.images()), expected)
    model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(zoo.run(model, zoo.images()), expected)


@pytest.mark.parametrize("name", ["native", "native-segmentation", "transformers", "transformers-segmentation"])
def test_save_pretrained(name: str, tmp_path: Path) -> None:
    model = zoo.SMALL[name]()
    expected, kind = zoo.run(model, zoo.images()), type(model)
    mvf.accelerate(model)
    zoo.run(model, zoo.images())
    model.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path).eval()
    assert type(loaded) is kind
    assert f'"{kind.__name__}"' in (tmp_path / "config.json").read_text()
    # transformers maps the file, and where a weight begins in memory decides how PyTorch rounds.
    loaded.load_state_dict({name: tensor.clone() for name, tensor in loaded.state_dict().items()}, assign=True)
    assert torch.equal(zoo.run(loaded, zoo.images()), expected)


def test_moves(model: nn.Module) -> None:
    original = copy.deepcopy(model)
    mvf.accelerate(model)
    x = zoo.images()
    zoo.run(model, x)
    for dtype in (torch.bfloat16, torch.float64, torch.float32):
        assert zoo.run(model.to(dtype), x.to(dtype)).dtype == dtype
    close(zoo.run(model, x), zoo.run(original.to(torch.bfloat16).float(), x))
    model.to(memory_format=torch.channels_last)
    close(zoo.run(model, x.contiguous(memory_format=torch.channels_last)), zoo.run(original, x))
    model.to("meta")
    assert zoo.run(model, x.to("meta")).device.type == "meta"


def test_an_input_of_another_type_is_refused_as_by_the_original(classifier: nn.Module) -> None:
    mvf.accelerate(classifier)
    with pytest.raises((RuntimeError, ValueError), match=r"expected|should be the same"):
        zoo.run(classifier, zoo.images().half())


STEPS = [
    (kind, mode)
    for kind in ({}, {"foreach": True}, {"fused": True})
    for mode in ("train", "eval", "eval with a call before the step")
]


# Only fused steps leave no trace in a tensor's version.
@pytest.mark.filterwarnings("ignore:.*gradients enabled")
@pytest.mark.parametrize(
    ("kind", "mode"),
    thorough_where(STEPS, lambda step: "fused" not in step[0] and (step[1] == "eval") == ("foreach" in step[0])),
    ids=str,
)
def test_an_optimiser_step_is_seen(classifier: nn.Module, kind: dict[str, bool], mode: str) -> None:
    mvf.accelerate(classifier)
    x = zoo.images()
    before = zoo.run(classifier, x)
    optimiser = torch.optim.SGD(classifier.parameters(), lr=1e-4, **kind)
    classifier.train(mode == "train")
    zoo.first_output(classifier(x)).square().mean().backward()
    if mode.endswith("step"):
        zoo.run(classifier, x)
    optimiser.step()
    optimiser.zero_grad()
    classifier.eval()
    after = zoo.run(classifier, x)
    assert after.isfinite().all()
    assert not torch.equal(after, before)
    close(after, zoo.run(mvf.restore(classifier), x))


@pytest.mark.parametrize("change", ["in place", "data", "parameter", "module", "buffer", "assign", "half and back"])
def test_changed_weights_are_seen(classifier: nn.Module, change: str) -> None:
    mvf.accelerate(classifier)
    x = zoo.images()
    before = zoo.run(classifier, x)
    linear = [m for m in classifier.modules() if type(m) is nn.Linear][-1]
    if change == "in place":
        with torch.no_grad():
            linear.weight.mul_(2)
    elif change == "data":
        linear.weight.data = linear.weight.data * 2
    elif change == "parameter":
        linear.weight = nn.Parameter(linear.weight.detach() * 2)
    elif change == "module":
        new = nn.Linear(linear.in_features, linear.out_features)
        owner = next(m for m in classifier.modules() if linear in m.children())
        setattr(owner, next(name for name, child in owner.named_children() if child is linear), new)
    elif change == "buffer":
        norm = next(m for m in classifier.modules() if isinstance(m, nn.BatchNorm2d))
        norm.running_mean += 1
    elif change == "assign":
        classifier.load_state_dict({k: v * 1.1 for k, v in classifier.state_dict().items()}, assign=True)
    else:
        classifier.half().float()
    after = zoo.run(classifier.eval(), x)
    assert not torch.equal(after, before)
    close(after, zoo.run(mvf.restore(classifier), x))


def test_a_class_taken_from_an_accelerated_model_makes_plain_ones(tmp_path: Path) -> None:
    for name in ("native", "transformers"):
        model = mvf.accelerate(zoo.SMALL[name]())
        again = type(model)(model.config).eval()
        assert not is_fused(again)
        zoo.run(again.to(torch.float64), zoo.images().double())
        model.save_pretrained(tmp_path / name)
        loaded = type(model).from_pretrained(tmp_path / name).eval()
        assert not is_fused(loaded)
        close(zoo.run(loaded, zoo.images()), zoo.run(model, zoo.images()))


def test_hooks_on_all_modules_see_all_modules() -> None:
    model = mvf.accelerate(zoo.SMALL["native"]())
    seen: list[type] = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    zoo.run(model, zoo.images())
    handle.remove()
    assert nn.Conv2d in seen
    assert nn.LayerNorm in seen


def test_a_layer_more_or_less_is_seen() -> None:
    model = zoo.SMALL["native"]()
    x, layers = zoo.images(), model.mobilevit.encoder.layer[3].transformer.layer
    mvf.accelerate(model)
    before = zoo.run(model, x)
    layers.append(copy.deepcopy(layers[0]))
    longer = zoo.run(model, x)
    assert not torch.equal(longer, before)
    close(longer, zoo.run(mvf.restore(model), x))
    mvf.accelerate(model)
    zoo.run(model, x)
    del layers[-1]
    assert torch.equal(zoo.run(model, x), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(classifier: nn.Module, dtype: torch.dtype) -> None:
    x = zoo.images(64, 32, 32)  # so many that errors are no matter of luck
    exact = zoo.run(copy.deepcopy(classifier).double(), x.double())
    with torch.autocast("cpu", dtype=dtype):
        plain = zoo.run(classifier, x)
        mvf.accelerate(classifier)
        fused = zoo.run(classifier, x)
    assert fused.dtype == plain.dtype == dtype
    assert_within_twice(fused, plain, exact, measure=rms_error)
    assert zoo.run(classifier, x).dtype == torch.float32
    mvf.accelerate(classifier, compute_dtype=dtype)
    assert torch.equal(zoo.run(classifier, x), fused)


def test_inference_mode_and_weights_made_in_it() -> None:
    with torch.inference_mode():
        model = zoo.SMALL["native"]()
        expected = zoo.first_output(model(zoo.images()))
        mvf.accelerate(model)
        for _ in range(2):
            close(zoo.first_output(model(zoo.images())), expected)
        model.classifier.weight.mul_(2)  # counts no version
        assert not torch.equal(zoo.first_output(model(zoo.images())), expected)


def test_several_threads_at_once(classifier: nn.Module) -> None:
    inputs = [zoo.images(1, 32 + 16 * i, 64, seed=i) for i in range(6)]
    expected = [zoo.run(classifier, x) for x in inputs]
    mvf.accelerate(classifier)
    results: list[Any] = [None] * len(inputs)
    barrier = threading.Barrier(len(inputs))

    def work(i: int) -> None:
        barrier.wait()
        results[i] = [zoo.run(classifier, inputs[i]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result, one in zip(results, expected, strict=True):
        assert result is not None
        for repeated in result:
            close(repeated, one)


def test_plan_for_another_device_without_it() -> None:
    """Tensors on the meta device stand for those of a GPU: the choice follows the order for GPUs."""
    report = mvf.plan(zoo.SMALL["native"]().to("meta"))
    assert not report.skipped
    expected = "triton" if INSTALLED else "reference"
    assert {backend for region in report for backend in region.backends.values()} == {expected}
    for backend in {"cuda", "triton"} - {expected}:
        assert any(text.startswith(f"{backend}: ") for region in report for text in region.passed_over)
    assert not any(text.startswith("cpu: ") for region in report for text in region.passed_over)


def test_a_class_that_asks_its_subclasses_for_arguments() -> None:
    base = type(zoo.SMALL["native"]())

    class Tagged(base):  # type: ignore[misc, valid-type]
        def __init_subclass__(cls, *, tag: int, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)

    class Model(Tagged, tag=1):
        pass

    model, x = zoo.SMALL["native"](), zoo.images(1)
    expected = zoo.run(model, x)
    model.__class__ = Model
    mvf.accelerate(model, compute_dtype=torch.bfloat16)
    assert len(mvf.report(model).fused) == 12
    assert (zoo.run(model, x) - expected).abs().max() > 1e-4  # bfloat16
    assert type(mvf.restore(model)) is Model
    assert torch.equal(zoo.run(model, x), expected)
