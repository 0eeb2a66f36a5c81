"""The README's chart: transformers, torch.compile and this package on a GPU and on a CPU, like with like."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from benchmarks.cpu.table import Rows
from benchmarks.plots import IMAGES_A_SECOND, MODEL, Bar, Picture, images_a_second, throughput


class Panel(NamedTuple):
    """A panel of the chart: what is run on which device, and who runs it how, by provider with its label."""

    device: str
    dtype: str
    batch: int
    how: str
    bars: dict[str, str]


_GRAPHS = {
    "transformers-graph": "transformers",
    "timm-compile-graph": "torch.compile (timm's model)",
    "ours-cuda-graph": "mobilevit_fast",
}
_CALLS = {
    "transformers": "transformers",
    "transformers-compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "ours": "mobilevit_fast",
}
PANELS = (
    Panel("cuda", "float16", 256, ", all as CUDA graphs", _GRAPHS),
    Panel("cuda", "float16", 1, ", all as CUDA graphs", _GRAPHS),
    Panel("cpu", "float32", 1, "", _CALLS),
)


def overview(newest: Mapping[str, tuple[str, Rows]]) -> Iterator[Picture]:
    """The chart of the newest results of each device: a title and rows; none where nothing of it was measured."""
    panels = []
    for device, dtype, batch, how, labels in PANELS:
        title, rows = newest.get(device, ("", []))
        measured = {
            row["provider"]: images_a_second(row)
            for row in rows
            if (row["kind"], row.get("model"), row.get("dtype"), row.get("batch")) == ("model", MODEL, dtype, batch)
            and row.get("median_ms")
        }
        bars = [
            Bar(label, measured[name], name.startswith("ours")) for name, label in labels.items() if name in measured
        ]
        if bars:
            panels.append((f"{title}\n{dtype}, batch {batch}{how}", bars))
    if panels:
        yield Picture("overview", f"{IMAGES_A_SECOND}, MobileViT-{MODEL}", "images of 256 px", panels, throughput)
