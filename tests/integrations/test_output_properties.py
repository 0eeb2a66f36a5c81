"""Results that leave an accelerated model have the original's layout, type, device and state of autograd."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mobilevit_fast as mvf
from mobilevit_fast.acceleration import fused, layouts
from testing.pairs import abridged, shortened
from testing.tiers import thorough, thorough_where
from tests.integrations import zoo
from tests.integrations.output_properties import IMAGES, MODELS, channels_last, pair, properties

MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}
LAYOUTS = ["contiguous", "channels_last"]
FEATURES = ["native", "native-backbone", "transformers", "transformers-backbone", "timm-features"]


def _call(model: nn.Module, x: Tensor, mode: str = "no_grad", **arguments: Any) -> Any:
    with MODES[mode]():
        return model(x, **arguments)


def _hidden(name: str) -> dict[str, Any]:
    return {} if name.startswith("timm") else {"output_hidden_states": True}


# Weights of the other layout for one model with and one without features of each library, and what ends otherwise.
BOTH_LAYOUTS = {"native-backbone", "native-segmentation", "transformers", "timm-features", "timm-fx"}


@pytest.mark.parametrize(
    ("name", "weights"),
    thorough_where(
        itertools.product(MODELS, LAYOUTS), lambda case: case[1] == "channels_last" and case[0] not in BOTH_LAYOUTS
    ),
)
def test_of_every_output(name: str, weights: str) -> None:
    plain, model = pair(name, weights)
    for layout, images in IMAGES.items():
        x = images()
        expected = properties(_call(plain, x, **_hidden(name)))
        assert properties(_call(model, x, **_hidden(name))) == expected, layout
    assert mvf.report(model).fused


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("mode", MODES)
def test_in_each_mode_after_another(name: str, mode: str) -> None:
    plain, model = pair(name)
    other = next(m for m in MODES if m != mode)
    _call(model, zoo.images(2), other)
    assert properties(_call(model, zoo.images(2), mode)) == properties(_call(plain, zoo.images(2), mode))


@pytest.mark.filterwarnings("ignore:mobilevit_fast:UserWarning")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", FEATURES)
def test_with_gradients_enabled(name: str, frozen: bool) -> None:
    plain, model = pair(name)
    for m in (plain, model):
        m.requires_grad_(not frozen)
    for layout in LAYOUTS:
        x = IMAGES[layout]()
        assert properties(model(x)) == properties(plain(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", FEATURES)
def test_in_another_type(name: str, dtype: torch.dtype) -> None:
    plain, model = (m.to(dtype) for m in pair(name))
    for layout in LAYOUTS:
        x = IMAGES[layout]().to(dtype)
        assert properties(_call(model, x, **_hidden(name))) == properties(_call(plain, x, **_hidden(name)))


@pytest.mark.parametrize("name", FEATURES)
def test_with_a_compute_dtype(name: str) -> None:
    plain, model = pair(name, compute_dtype=torch.bfloat16)
    for layout in LAYOUTS:
        x = IMAGES[layout]()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = properties(_call(plain, x, **_hidden(name)))
        assert properties(_call(model, x, **_hidden(name))) == expected


@pytest.mark.parametrize("name", FEATURES)
def test_of_uint8_images(name: str) -> None:
    pixels = mvf.PixelNormalization()
    plain, model = pair(name, uint8_images=pixels)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for x in (images, channels_last(images)):
        expected = properties(_call(plain, pixels.normalized(x, torch.float32), **_hidden(name)))
        assert properties(_call(model, x, **_hidden(name))) == expected


@pytest.mark.parametrize("name", ["native", "native-backbone", "native-segmentation"])
@pytest.mark.parametrize("library", ["native", "transformers"])
@pytest.mark.parametrize("return_dict", [False, True])
def test_by_name_and_as_a_tuple(library: str, name: str, return_dict: bool) -> None:
    plain, model = pair(name.replace("native", library))
    arguments = {"output_hidden_states": True, "return_dict": return_dict, "pixel_values": zoo.images(2)}
    with torch.no_grad():
        assert properties(model(**arguments)) == properties(plain(**arguments))


METHODS: dict[str, Callable[[Any, Tensor], Any]] = {
    "forward_features": lambda model, x: model.forward_features(x),
    "forward_head": lambda model, x: model.forward_head(model.forward_features(x)),
    "intermediates": lambda model, x: model.forward_intermediates(x),
    "some intermediates": lambda model, x: model.forward_intermediates(x, indices=[1, 3], intermediates_only=True),
    "stop early": lambda model, x: model.forward_intermediates(x, 2, stop_early=True, exclude_final_conv=True),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_methods_of_timm(method: str, layout: str) -> None:
    plain, model = pair("timm")
    with torch.no_grad():
        results = [properties(METHODS[method](m, IMAGES[layout]())) for m in (plain, model)]
    assert results[0] == results[1]


PARTS = {
    "native": ["mobilevit", "mobilevit.conv_stem"],
    "native-segmentation": ["mobilevit"],
    "transformers": ["mobilevit", "mobilevit.conv_stem"],
    "transformers-segmentation": ["mobilevit", "mobilevit.conv_stem"],
    "timm": ["stem"],
    "timm-features": ["stem"],
}


@pytest.mark.parametrize(
    ("name", "weights"),
    thorough_where(
        itertools.product(PARTS, LAYOUTS), lambda case: case[1] == "channels_last" and case[0] not in BOTH_LAYOUTS
    ),
)
def test_of_every_part_by_itself(name: str, weights: str) -> None:
    """Called with what it sees inside of the plain model."""
    plain, model = pair(name, weights)
    fused = [region.path for region in mvf.report(model).fused if region.path]
    between = {path.rsplit(".", 1)[0] for path in fused if "." in path}
    for path in [*fused, *sorted(between - {"mobilevit"}), *PARTS[name]]:
        inputs: list[Tensor] = []
        part = plain.get_submodule(path)
        handle = part.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0]))
        for layout in LAYOUTS:
            _call(plain, IMAGES[layout]())
        handle.remove()
        for x in inputs:
            assert properties(_call(model.get_submodule(path), x)) == properties(_call(part, x)), path


class Around(nn.Module):
    """A user's own model, whose code depends on the layout of features."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        last: Tensor = features[-1] if isinstance(features, list) else features.last_hidden_state
        return last.view(len(x), -1)


@pytest.mark.parametrize("name", ["native-backbone", "transformers-backbone", "timm-features"])
def test_inside_of_a_users_model(name: str) -> None:
    plain = Around(MODELS[name]())
    model = mvf.accelerate(copy.deepcopy(plain))
    assert properties(_call(model, zoo.images(2))) == properties(_call(plain, zoo.images(2)))


@pytest.mark.parametrize("name", ["native-segmentation", "transformers", "timm", "timm-features"])
def test_of_what_hooks_see(name: str) -> None:
    plain, model = pair(name)
    for kind in ("register_forward_hook", "register_forward_pre_hook"):
        fused = [region.path for region in mvf.report(model).fused if region.path]
        watched = [*fused, *{path.rsplit(".", 1)[0] for path in fused if "." in path}]
        for path in watched:
            seen = []
            for m in (plain, model):
                captured: list[Any] = []
                handle = getattr(m.get_submodule(path), kind)(lambda *a, captured=captured: captured.append(a[-1]))
                seen.append([properties(_call(m, IMAGES[layout]())) for layout in LAYOUTS])
                seen[-1] += map(properties, captured)
                handle.remove()
            assert seen[0] == seen[1], path
    assert mvf.report(model).fused


@pytest.mark.parametrize("include", ["inverted_residual", "mobilevit_block", "conv2d_bias_act"])
@pytest.mark.parametrize("name", ["native", "transformers-segmentation", "timm-features"])
def test_of_a_model_that_is_fused_in_part(name: str, include: str) -> None:
    plain, model = pair(name, include=[include])
    for layout in LAYOUTS:
        x = IMAGES[layout]()
        assert properties(_call(model, x, **_hidden(name))) == properties(_call(plain, x, **_hidden(name)))


def _pickled(model: nn.Module) -> Any:
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, _pickled])
def test_of_copies(copied: Callable[[nn.Module], Any]) -> None:
    plain, model = pair("transformers-segmentation")
    twin = copied(model)
    for m, p in ((twin, plain), (twin.mobilevit, plain.mobilevit)):
        assert properties(_call(m, zoo.images(2))) == properties(_call(p, zoo.images(2)))


def test_layout_of_weights_after_acceleration_counts() -> None:
    plain, model = pair("timm-features")
    _call(model, zoo.images(2))
    for memory_format in (torch.channels_last, torch.contiguous_format):
        plain, model = (m.to(memory_format=memory_format) for m in (plain, model))
        assert properties(_call(model, zoo.images(2))) == properties(_call(plain, zoo.images(2)))


def test_results_between_regions_stay_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mvf.accelerate(MODELS["timm-features"]())
    strides = []

    def settled(layout: Any, x: Tensor, y: Tensor) -> Tensor:
        strides.append((x.stride(), y.stride()))
        return layouts.settled(layout, x, y)

    monkeypatch.setattr(fused, "settled", settled)
    _call(model, zoo.images(2))
    assert len(strides) == len(mvf.report(model))
    assert all(taken == given for (taken, _), (_, given) in zip(strides[1:], strides, strict=False))
    assert all(given[1] == 1 for _, given in strides)


def test_threads_do_not_see_each_others_calls() -> None:
    plain, model = pair("timm-features")
    expected = {layout: properties(_call(plain, IMAGES[layout]())) for layout in LAYOUTS}
    stem = properties(_call(plain.stem, zoo.images(2)))

    def call(i: int) -> bool:
        if i % 3 == 2:
            return properties(_call(model.stem, zoo.images(2))) == stem
        layout = LAYOUTS[i % 3]
        return properties(_call(model, IMAGES[layout]())) == expected[layout]

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(call, range(24)))


def test_a_call_that_fails_is_over() -> None:
    plain, model = pair("timm-features")
    with pytest.raises(RuntimeError):
        _call(model, torch.zeros(2, 5, 64, 64))
    assert properties(_call(model.stem, zoo.images(2))) == properties(_call(plain.stem, zoo.images(2)))


def _strides(output: Any) -> list[Any]:
    return [leaf.strides for leaf in properties(output)[1:]]


SHORT: dict[str, Callable[[], nn.Module]] = {
    "native-backbone": lambda: abridged(MODELS["native-backbone"]()),
    "timm-features": lambda: shortened(zoo.timm(features_only=True, out_indices=(0, 2))),
}


@pytest.mark.parametrize("name", ["native-backbone", thorough("timm-features")])
def test_in_a_compiled_graph(name: str) -> None:
    torch._dynamo.reset()
    plain, model = SHORT[name](), mvf.accelerate(SHORT[name]())
    graph: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert _strides(_call(graph, zoo.images(2))) == _strides(_call(plain, zoo.images(2)))


# Export traces what `test_of_every_output` runs: of its cases one of each kind.
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("native-segmentation", "channels_last"),
        ("transformers-backbone", "contiguous"),
        ("timm-features", "channels_last"),
        thorough(("native-segmentation", "contiguous")),
        thorough(("transformers-backbone", "channels_last")),
        thorough(("timm-features", "contiguous")),
    ],
)
def test_in_an_exported_graph(name: str, weights: str) -> None:
    plain, model = map(shortened, pair(name, weights))
    x = zoo.images(2)
    with torch.no_grad():
        graph = torch.export.export(model, (x,)).module()
        assert _strides(graph(x)) == _strides(plain(x))


@pytest.mark.parametrize("name", ["native-features", "transformers-backbone", "timm-features"])
def test_regions_that_got_their_own_class_back(name: str) -> None:
    """By others, before the first call, which looks for hooks on what is not fused."""
    plain, model = pair(name)
    for module in model.modules():
        if isinstance(module, fused.Fused) and not isinstance(module, layouts.LayoutRoot):
            module.__class__ = type(module)._mvf_own
            break
    for images in IMAGES.values():
        assert properties(_call(model, images())) == properties(_call(plain, images()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["native-segmentation", "transformers-segmentation"])
def test_an_aspp_by_itself(name: str, layout: str) -> None:
    plain, model = pair(name)
    inputs = plain.segmentation_head.aspp.convs[0].convolution.in_channels
    x = torch.randn(2, inputs, 8, 8)
    x = x.to(memory_format=torch.channels_last) if layout == "channels_last" else x
    assert properties(_call(model.segmentation_head.aspp, x)) == properties(_call(plain.segmentation_head.aspp, x))
