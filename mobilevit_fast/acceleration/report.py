"""Outcome for every region of a model, as data and as a table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.table import Table


class Region(NamedTuple):
    """One region of a model.

    Attributes:
        path: of its module, as in ``named_modules``; empty for the model itself.
        kind: of region: inverted_residual, mobilevit_block, conv2d_bias_act, classifier_head, aspp.
        module: name of the class.
        backends: operator (within the region) to backend; empty where the region is not fused.
        reason: why it is not fused; empty where it is.
        passed_over: why faster backends were not taken, one sentence for each.
        remark: what becomes of uint8 images, where the model takes them and this is its first convolution; or that
            training mode is on.
    """

    path: str
    kind: str
    module: str
    backends: Mapping[str, str]
    reason: str
    passed_over: tuple[str, ...] = ()
    remark: str = ""

    @property
    def fused(self) -> bool:
        """Whether the region runs (or would run) as fused operators."""
        return bool(self.backends)


class Report(Sequence[Region]):
    """The regions of a model, in the order in which the model holds them. ``str(report)`` is a table.

    Attributes:
        cuda_graphs: how many shapes are captured and why the last call that was no graph's was none; empty where the
            model was accelerated without.
    """

    def __init__(self, regions: Sequence[Region], cuda_graphs: str = "") -> None:
        self.regions = tuple(regions)
        self.cuda_graphs = cuda_graphs

    @property
    def fused(self) -> list[Region]:
        """The regions that run as fused operators."""
        return [region for region in self.regions if region.fused]

    @property
    def skipped(self) -> list[Region]:
        """The regions that do not, each with its reason."""
        return [region for region in self.regions if not region.fused]

    def __getitem__(self, index: Any) -> Any:
        return self.regions[index]

    def __len__(self) -> int:
        return len(self.regions)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def to_list(self) -> list[dict[str, Any]]:
        """The regions as dictionaries of plain values, for JSON."""
        return [
            {**region._asdict(), "backends": dict(region.backends), "passed_over": list(region.passed_over)}
            for region in self.regions
        ]

    def __rich__(self) -> Group:
        table = Table(title=self._title(), title_justify="left")
        for heading in ("module", "region", "backend", "remark"):
            table.add_column(heading, overflow="fold")
        for region in self.regions:
            names = sorted(set(region.backends.values()))
            if len(names) > 1:
                backends = ", ".join(f"{part}: {name}" for part, name in region.backends.items())
            else:
                backends = names[0] if names else "skipped"
            table.add_row(region.path or "(model)", region.kind, backends, region.reason or region.remark)
        passed_over = sorted({sentence for region in self.regions for sentence in region.passed_over})
        graphs = [f"CUDA graphs: {self.cuda_graphs}"] if self.cuda_graphs else []
        return Group(table, *graphs, *(f"passed over: {sentence}" for sentence in passed_over))

    def _title(self) -> str:
        title = f"{len(self.fused)} of {len(self)} regions fused"
        plain = sum(set(region.backends.values()) == {"reference"} for region in self.fused)
        return f"{title}, {plain} of them by PyTorch's own operators (reference)" if plain else title

    def __str__(self) -> str:
        text = io.StringIO()
        console = Console(file=text, width=160)
        console.print(self)
        return text.getvalue().rstrip()

    __repr__ = __str__
