"""Accelerated models under torch.compile, torch.export and AOTInductor."""

import pytest
import torch

import mobilevit_fast as mvf
from mobilevit_fast.acceleration import fused
from testing.pairs import abridged
from testing.tiers import thorough
from testing.tolerance import close
from tests.integrations import zoo

CLASSIFIERS = ["native", "transformers", "timm"]


def operators(graph: torch.fx.Graph) -> list[str]:
    """The fused operators of a graph; packing the weights for them, which some backends need, is not counted."""
    names = [str(node.target) for node in graph.nodes if "mobilevit_fast" in str(node.target)]
    return [name for name in names if not name.endswith("_pack")]


# Inductor compiles the native one below.
@pytest.mark.parametrize(
    ("name", "regions"),
    [("transformers", 8), thorough(("timm", 8)), *(thorough((name, 18)) for name in CLASSIFIERS)],
)
def test_compile_in_one_graph(name: str, regions: int) -> None:
    """Stem, three inverted residuals, a block of three, head; or seven and three blocks."""
    torch._dynamo.reset()
    model = mvf.accelerate(zoo.SMALL[name]() if regions == 18 else abridged(zoo.SMALL[name]()))
    expected = zoo.run(model, zoo.images())
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    close(zoo.run(compiled, zoo.images()), expected)
    assert len(graphs) == 1
    found = [name for g in graphs[0].modules() if hasattr(g, "graph") for name in operators(g.graph)]
    assert len(found) == regions
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    close(zoo.run(compiled, zoo.images()), zoo.run(model, zoo.images()))
    assert len(graphs) == 1


def test_dropout_in_training_mode_is_respected_in_a_graph() -> None:
    torch._dynamo.reset()
    model = mvf.accelerate(abridged(zoo.SMALL["native"]()), include=["classifier_head"])
    model.dropout.p = 0.5
    model.dropout.train()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert not torch.equal(zoo.run(compiled, zoo.images(8)), zoo.run(compiled, zoo.images(8)))


def test_export_with_gradients_enabled_warns() -> None:
    fused._warn_about_gradients.cache_clear()
    with pytest.warns(UserWarning, match="gradients enabled"):
        program = torch.export.export(mvf.accelerate(abridged(zoo.SMALL["native"]())), (zoo.images(2),))
    assert not operators(program.graph)


@pytest.mark.slow
def test_compile_by_inductor() -> None:
    torch._dynamo.reset()
    model = mvf.accelerate(abridged(zoo.SMALL["native"]()))
    expected = zoo.run(model, zoo.images())
    compiled = torch.compile(model, fullgraph=True)
    close(zoo.run(compiled, zoo.images()), expected)


@pytest.mark.parametrize("name", [*CLASSIFIERS, "native-segmentation"])
def test_export_with_a_dynamic_batch(name: str) -> None:
    model = mvf.accelerate(zoo.SMALL[name]() if "segmentation" in name else abridged(zoo.SMALL[name]()))
    batch = torch.export.Dim("batch", min=1, max=64)
    dynamic_shapes = {("x" if name == "timm" else "pixel_values"): {0: batch}}
    with torch.no_grad():
        program = torch.export.export(model, (zoo.images(2),), dynamic_shapes=dynamic_shapes)
    assert len(operators(program.graph)) == (19 if "segmentation" in name else 8)
    for size in (1, 5):
        x = zoo.images(size)
        close(zoo.run(program.module(), x), zoo.run(model, x))
