"""Pictures of results: throughput against peers, latency over batch size, time per region against its floor.

Drawn by Matplotlib as SVG without a date. The text of a picture also depends on Matplotlib's version, so each holds a
digest of what it shows and of this file, which is what a check compares.
"""

import functools
import hashlib
import inspect
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cpu.table import Rows, shape_text
from benchmarks.registry import SIZES

OURS, PEERS, FAINT, INK = "#d1495b", "#a7adb5", "#e3e6ea", "#2b2f36"
MODEL = next(iter(SIZES))
PANELS = {
    "cpu": (("float32", 1), ("float32", 8), ("bfloat16", 8)),
    "cuda": (("float16", 256), ("float16", 1)),
}
"""Type and batch of the cases whose throughput is shown."""
REGIONS = {"cpu": ("float32", 1), "cuda": ("float16", 256)}
"""Type and batch of the case whose operators are shown."""
LINES = {"cpu": "float32", "cuda": "float16"}
"""Type of the cases whose latency is shown over batch sizes."""
IMAGES_A_SECOND = "Images a second"
OF_REGIONS = "Milliseconds of every operator, and the least possible"
SETTINGS: dict[Any, Any] = {  # matplotlib knows the names as literals
    "svg.fonttype": "path",
    "svg.hashsalt": "mobilevit_fast",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


class Bar(NamedTuple):
    """A provider's throughput."""

    label: str
    value: float
    ours: bool


class Line(NamedTuple):
    """A provider's milliseconds for a call, by batch."""

    label: str
    batches: tuple[int, ...]
    values: tuple[float, ...]
    ours: bool


class Region(NamedTuple):
    """An operator's milliseconds: this package's, plain PyTorch's, and the least possible."""

    label: str
    ours: float
    plain: float | None
    floor: float


def _measured(rows: Rows, kind: str, dtype: str) -> Rows:
    return [
        row
        for row in rows
        if row["kind"] == kind and row["model"] == MODEL and row["dtype"] == dtype and row.get("median_ms")
    ]


def _is_ours(row: dict[str, Any]) -> bool:
    return str(row["provider"]).startswith("ours")


def images_a_second(row: dict[str, Any]) -> float:
    """Rows of a GPU have it; those of a CPU are per image."""
    return float(row.get("images_s", 1e3 / row["median_ms"]))


def bars(rows: Rows, dtype: str, batch: int) -> list[Bar]:
    """The fastest first."""
    found = [
        Bar(row["label"], images_a_second(row), _is_ours(row))
        for row in _measured(rows, "model", dtype)
        if row["batch"] == batch
    ]
    return sorted(found, key=lambda bar: -bar.value)


def lines(rows: Rows, dtype: str) -> list[Line]:
    """Lines of every provider that was measured with several batches."""
    by_provider: dict[str, Rows] = {}
    for row in sorted(_measured(rows, "model", dtype), key=lambda row: row["batch"]):
        by_provider.setdefault(row["provider"], []).append(row)
    found = []
    for own in by_provider.values():
        times = tuple(1e3 * row["batch"] / images_a_second(row) for row in own)
        if len(own) > 1:
            found.append(Line(own[0]["label"], tuple(row["batch"] for row in own), times, _is_ours(own[0])))
    return found


def regions(rows: Rows, device: str, dtype: str, batch: int) -> list[Region]:
    """In the order of the network."""
    found = [row for row in _measured(rows, "operator", dtype) if row["batch"] == batch]
    if device == "cpu":
        return [
            Region(
                f"{row['operator']}  {shape_text(row['shape'])}",
                row["median_ms"],
                row["plain_median_ms"],
                row["median_ms"] * row["share_of_floor"],
            )
            for row in found
            if "share_of_floor" in row
        ]
    plain = {(row["operator"], row["shape"], row["residual"]): row for row in found if row["provider"] == "plain"}
    return [
        Region(
            f"{row['operator']}  {row['shape']}",
            row["median_ms"],
            plain.get((row["operator"], row["shape"], row["residual"]), {}).get("median_ms"),
            row["median_ms"] * row["share_of_floor"],
        )
        for row in found
        if row["provider"] == "cuda"
    ]


class Picture(NamedTuple):
    """A file of ``docs/plots``: what it shows, in plain values, and who draws it."""

    name: str
    what: str
    title: str
    content: Any
    draw: Callable[[str, str, Any], bytes]

    @property
    def digest(self) -> str:
        """Digest of what it shows and of how it is drawn."""
        files = dict.fromkeys((__file__, inspect.unwrap(self.draw).__code__.co_filename))
        source = "".join(Path(file).read_text(encoding="utf-8") for file in files)
        return hashlib.sha256(f"{self.what}{self.title}{json.dumps(self.content)}{source}".encode()).hexdigest()[:16]

    def svg(self) -> str:
        """The text of the file."""
        drawn = self.draw(self.what, self.title, self.content).decode()
        clean = "\n".join(line.rstrip() for line in drawn.splitlines())
        # matplotlib names what it clips by where in memory the rectangle is; here by when it comes.
        clips: dict[str, str] = {}
        clean = re.sub(r"\bp[0-9a-f]{10}\b", lambda found: clips.setdefault(found[0], f"clip{len(clips)}"), clean)
        return clean.replace("<svg ", f"<!-- data: {self.digest} -->\n<svg ", 1) + "\n"

    def is_that_of(self, text: str) -> bool:
        """Whether a file shows the same."""
        found = re.search(r"<!-- data: (\w+) -->", text)
        return found is not None and found[1] == self.digest


def pictures(device: str, name: str, machine: str, models: Rows, operators: Rows) -> Iterable[Picture]:
    """Pictures of the results that a machine has; ``name`` is in the names of files, ``machine`` in titles."""
    panels = [(f"{dtype}, batch {batch}", bars(models, dtype, batch)) for dtype, batch in PANELS[device]]
    panels = [panel for panel in panels if panel[1]]
    if panels:
        yield Picture(f"throughput-{name}", IMAGES_A_SECOND, f"MobileViT-{MODEL}, {machine}", panels, throughput)
    found = lines(models, LINES[device])
    if found:
        title = f"MobileViT-{MODEL}, {LINES[device]}, {machine}"
        yield Picture(f"latency-{name}", "Milliseconds for a batch", title, found, _latency)
    dtype, batch = REGIONS[device]
    every = regions(operators, device, dtype, batch)
    if every:
        images = "one image" if batch == 1 else f"{batch} images"
        yield Picture(
            f"regions-{name}", OF_REGIONS, f"MobileViT-{MODEL}, {dtype}, {images}, {machine}", every, _regions
        )


def drawing(draw: Callable[[Any, Any], Any]) -> Callable[[str, str, Any], bytes]:
    """Have a function draw with these settings, on no display, and give the bytes of its SVG."""

    @functools.wraps(draw)
    def drawn(what: str, title: str, content: Any) -> bytes:
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(SETTINGS):
            figure = Figure(layout="constrained")
            figure.suptitle(f"{what}\n{title}", x=0.01, ha="left", fontsize=11, fontweight="bold")
            draw(figure, content)
            file = io.BytesIO()
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
            return file.getvalue()

    return drawn


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@drawing
def throughput(figure: Any, panels: list[tuple[str, list[Bar]]]) -> None:
    """A panel for each case, stacked; bars of all with the same thickness."""
    counts = [len(found) for _, found in panels]
    figure.set_size_inches(8.4, 0.27 * sum(counts) + 0.6 * len(counts) + 0.5)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[n + 0.6 for n in counts])[:, 0]
    for ax, (case, found) in zip(axes, panels, strict=True):
        ax.set_title(case)
        ax.barh(range(len(found)), [b.value for b in found], 0.76, color=[OURS if b.ours else PEERS for b in found])
        ax.set_yticks(range(len(found)), [b.label for b in found])
        ax.set_ylim(len(found) - 0.4, -0.6)
        ax.set_xlim(0, 1.1 * max(b.value for b in found))
        for label, bar in zip(ax.get_yticklabels(), found, strict=True):
            label.set(color=OURS if bar.ours else INK, fontweight="bold" if bar.ours else "normal")
        for i, bar in enumerate(found):
            ax.annotate(_number(bar.value), (bar.value, i), (4, 0), textcoords="offset points", va="center", size=9)
        ax.set_xticks([])
        ax.tick_params(length=0)
        ax.spines[["bottom", "left"]].set_visible(False)


def spread(wanted: Sequence[float], distance: float) -> list[float]:
    """Positions in the order of ``wanted``, as near to it as labels that far from each other can be."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    groups: list[list[float]] = []  # middle and members: labels that touch move together
    for i in order:
        groups.append([wanted[i], 1])
        while len(groups) > 1:
            (low, n), (high, m) = groups[-2:]
            if high - low >= distance * (n + m) / 2:
                break
            groups[-2:] = [[(low * n + high * m) / (n + m), n + m]]
    placed = [middle + distance * (k - (n - 1) / 2) for middle, n in groups for k in range(int(n))]
    found = [0.0] * len(wanted)
    for i, position in zip(order, placed, strict=True):
        found[i] = position
    return found


@drawing
def _latency(figure: Any, found: list[Line]) -> None:
    """Both axes logarithmic; every line has its name at its end."""
    import math

    figure.set_size_inches(8.4, max(4.2, 0.27 * len(found) + 1.2))
    ax = figure.subplots()
    ax.set(xscale="log", yscale="log", xlabel="images in a batch")
    batches = sorted({batch for line in found for batch in line.batches})
    for line in sorted(found, key=lambda line: line.ours):
        style = {"color": OURS if line.ours else PEERS, "lw": 2.2 if line.ours else 1.3, "marker": "o", "ms": 4}
        ax.plot(line.batches, line.values, **style)
    ax.set_xticks(batches, [str(batch) for batch in batches])
    ax.minorticks_off()
    bottom, top = ax.get_ylim()
    marks = [mark * 10.0**power for power in range(-3, 5) for mark in (1, 2, 5)]
    ax.set_yticks([mark for mark in marks if bottom <= mark <= top])
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.grid(axis="y", color=FAINT, lw=0.8)
    ax.set_axisbelow(True)
    low, high = (math.log(v) for v in ax.get_ylim())
    ends = [math.log(line.values[-1]) for line in found]
    distance = (high - low) * 0.235 / (figure.get_size_inches()[1] - 1.1)
    for line, end, y in zip(found, ends, spread(ends, distance), strict=True):
        color = OURS if line.ours else INK
        leader = {"color": OURS if line.ours else PEERS, "lw": 0.6, "shrinkA": 1, "relpos": (0, 0.5)}
        ax.annotate(
            f"{line.label}  {_number(line.values[-1])}",
            (line.batches[-1], math.exp(end)),
            (1.06, (y - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            size=9,
            color=color,
            fontweight="bold" if line.ours else "normal",
            arrowprops={"arrowstyle": "-", **leader},
            annotation_clip=False,
        )


@drawing
def _regions(figure: Any, found: list[Region]) -> None:
    """A line for each operator: floor, this package, PyTorch, on a logarithmic axis."""
    figure.set_size_inches(9.6, 0.27 * len(found) + 1.4)
    ax = figure.subplots()
    ax.set(xscale="log", ylim=(len(found) - 0.4, -0.6))
    for i, region in enumerate(found):
        ends = [v for v in (region.floor, region.ours, region.plain) if v is not None]
        ax.plot([min(ends), max(ends)], [i, i], color=FAINT, lw=2.5, zorder=1)
    rows = range(len(found))
    ax.scatter([r.floor for r in found], rows, s=110, marker="|", color=INK, lw=2, zorder=2, label="floor")
    plain = [(r.plain, i) for i, r in enumerate(found) if r.plain is not None]
    ax.scatter([ms for ms, _ in plain], [i for _, i in plain], s=34, color=PEERS, zorder=2, label="PyTorch")
    ax.scatter([r.ours for r in found], rows, s=44, color=OURS, zorder=3, label="mobilevit_fast")
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, frameon=False, fontsize=9, handletextpad=0.2)
    ax.set_yticks(rows, [r.label for r in found], size=9)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.grid(axis="x", color=FAINT, lw=0.8)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    right = ax.secondary_yaxis("right")
    right.set_yticks(rows, [f"{100 * r.floor / r.ours:.0f} %" for r in found], size=9)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    ax.annotate("floor / time", (1.0, 1.0), xycoords="axes fraction", ha="left", va="bottom", size=9)
