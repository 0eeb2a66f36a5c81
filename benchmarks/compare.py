"""Changes between two files of results: `python -m benchmarks compare OLD.json NEW.json [--threshold 5]`.

A row of this package regressed if it is slower by more than the threshold and outside the noise, its p20 being above
the p80 of before, or if its error is more than twice what it was. Libraries beside it are the measure of the machine:
where they moved too, that is said, but what was measured decides. How many times as long they take as this package is
compared as well, with its spread. Exit status 1 where something of this package regressed.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.table import Table

from benchmarks import speedups
from benchmarks.cpu.table import shape_text
from benchmarks.ratios import Ratio
from mobilevit_fast.cli.console import FAILURE, note, stdout, usage_error

Row = dict[str, Any]
Identity = tuple[tuple[str, str], ...]

IDENTIFYING = ("kind", "task", "model", "image_size", "batch", "dtype", "operator", "shape", "residual", "provider")
WHERE_NEEDED = ("path", "backend", "device")
"""Only where rows would be the same without it: a kernel on another backend or device is still to be compared."""
OURS = ("cuda", "triton", "cpu")
ANCHORS = (*speedups.OURS.values(), "cuda")
"""This package as users call it: what others are compared with."""
ERROR_GROWTH = 2.0
_VARYING = ("date", "git", "load_average", "machine")
"""Parts of an environment that differ from run to run."""


class Measured(NamedTuple):
    """Milliseconds and error of a row."""

    median: float
    p20: float
    p80: float
    error: float | None


class Change(NamedTuple):
    """A row that was measured both times."""

    name: str
    ours: bool
    old: Measured
    new: Measured

    @property
    def ratio(self) -> float:
        """How many times as long it takes now."""
        return self.new.median / self.old.median

    def slower(self, threshold: float, machine: float = 1.0) -> bool:
        """By more than a threshold in per cent and the noise, the machine being so many times as slow as before."""
        beyond = self.ratio / machine > 1 + threshold / 100
        return beyond and self.new.p20 / machine > self.old.p80

    def faster(self, threshold: float) -> bool:
        """By as much as would make it slower the other way round."""
        return self._replace(old=self.new, new=self.old).slower(threshold)

    @property
    def less_exact(self) -> bool:
        """Whether its error is more than twice what it was, or no number any more."""
        old, new = self.old.error, self.new.error
        if old is None or new is None or not math.isfinite(old):
            return False
        return not new <= ERROR_GROWTH * old  # a NaN is not


def load(path: Path) -> dict[str, Any]:
    """A file of results.

    Raises:
        ValueError, OSError: it is none, or cannot be read.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError('expected an object with a list of objects as "rows"')
    return {**content, "rows": list(split(rows))}


def split(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows with a provider each: plain PyTorch's times stand in the same row as the operator's."""
    for row in rows:
        yield {"provider": "ours", **row} if "median_ms" in row else row
        plain = {name.removeprefix("plain_"): value for name, value in row.items() if name.startswith("plain_")}
        if plain:
            yield {**row, **plain, "provider": "plain"}


def measured(row: Row) -> Measured | None:
    """The numbers of a row; None where it has no time."""
    median = _number(row.get("median_ms"))
    if median is None or not 0 < median < math.inf:
        return None
    p20, p80 = (_number(row.get(name)) for name in ("p20_ms", "p80_ms"))
    error = _number(row.get("max_error", row.get("error")))
    return Measured(median, median if p20 is None else p20, median if p80 is None else p80, error)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def is_ours(row: Row) -> bool:
    """Whether it is of this package."""
    provider = str(row.get("provider", ""))
    return provider.startswith("ours") or provider in OURS


def _text(value: Any) -> str:
    return (
        shape_text(value) if isinstance(value, dict) and {"inputs", "height", "width"} <= value.keys() else str(value)
    )


def _identity(row: Row, fields: Sequence[str]) -> Identity:
    return tuple((field, _text(row[field])) for field in fields if row.get(field) is not None)


def identified(old: Sequence[Row], new: Sequence[Row]) -> tuple[dict[Identity, Row], dict[Identity, Row]]:
    """Both files' rows by what they describe, in fields that both files have.

    Rows that nothing tells apart are numbered.
    """

    def known(field: str) -> bool:
        return all(any(row.get(field) is not None for row in rows) for rows in (old, new))

    def kinds(fields: Sequence[str]) -> int:
        return sum(len({_identity(row, fields) for row in rows}) for rows in (old, new))

    fields = [field for field in IDENTIFYING if known(field)]
    for field in WHERE_NEEDED:
        if known(field) and kinds([*fields, field]) > kinds(fields):
            fields.append(field)
    return _by_identity(old, fields), _by_identity(new, fields)


def _by_identity(rows: Sequence[Row], fields: Sequence[str]) -> dict[Identity, Row]:
    seen: Counter[Identity] = Counter()
    found = {}
    for row in rows:
        identity = _identity(row, fields)
        seen[identity] += 1
        number = seen[identity]
        found[identity if number == 1 else (*identity, ("number", str(number)))] = row
    return found


def name_of(identity: Identity) -> str:
    """For people."""
    words = {"kind": "", "batch": "batch {}", "image_size": "{} px", "number": "number {}", "residual": "residual"}
    shown = [(field, value) for field, value in identity if (field, value) != ("residual", "False")]
    return " ".join(words.get(field, "{}").format(value) for field, value in shown).strip()


class Comparison(NamedTuple):
    """``changes`` are of rows measured both times; ``lost`` are this package's that now are not, with the reason.

    ``ratios`` are by name of others' rows: how many times as long they take as this package, before and now.
    """

    changes: list[Change]
    lost: list[tuple[str, str]]
    ratios: dict[str, tuple[Ratio, Ratio]]
    only_old: int
    only_new: int

    @property
    def machine(self) -> float | None:
        """Median of the ratios of others; None without any."""
        ratios = [change.ratio for change in self.changes if not change.ours]
        return statistics.median(ratios) if ratios else None

    @property
    def peers(self) -> int:
        """Rows of others."""
        return sum(not change.ours for change in self.changes)

    def regressed(self, threshold: float) -> list[Change]:
        """Rows of this package that are slower or less exact."""
        return [c for c in self.changes if c.ours and (c.slower(threshold) or c.less_exact)]


def compare(old: dict[str, Any], new: dict[str, Any]) -> Comparison:
    """Row by row."""
    before, after = identified(old["rows"], new["rows"])
    changes, lost, only = [], [], Counter[str]()
    for identity in dict.fromkeys((*before, *after)):
        first, second = (measured(rows.get(identity, {})) for rows in (before, after))
        if first and second:
            changes.append(Change(name_of(identity), is_ours(after[identity]), first, second))
        elif first:
            only["old"] += 1
            if is_ours(before[identity]):
                reason = after[identity].get("reason") if identity in after else None
                lost.append((name_of(identity), str(reason or "no such row")))
        elif second:
            only["new"] += 1
    first_ratios, second_ratios = _ratios(before), _ratios(after)
    ratios = {name_of(i): (ratio, second_ratios[i]) for i, ratio in first_ratios.items() if i in second_ratios}
    return Comparison(sorted(changes, key=lambda change: -change.ratio), lost, ratios, only["old"], only["new"])


def _ratios(rows: dict[Identity, Row]) -> dict[Identity, Ratio]:
    """Ratios of others' rows to this package's, where it was measured in the same case."""

    def case(identity: Identity) -> Identity:
        return tuple(entry for entry in identity if entry[0] != "provider")

    timed = {identity: row for identity, row in rows.items() if measured(row)}
    ours = {case(identity): row for identity, row in timed.items() if row.get("provider") in ANCHORS}
    return {
        identity: Ratio.of(row, ours[case(identity)])
        for identity, row in timed.items()
        if not is_ours(row) and case(identity) in ours
    }


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Where two environments differ, in what both of them say."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name, value in old.items():
            if name in new and name not in _VARYING:
                yield from differences(value, new[name], f"{path}.{name}" if path else name)
    elif old != new:
        if isinstance(old, list) and isinstance(new, list):
            changed = [f"-{one}" for one in old if one not in new] + [f"+{one}" for one in new if one not in old]
            yield f"{path}: {' '.join(changed)}"
        else:
            yield f"{path}: {old} → {new}"


def _conditions(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"versions": content["versions"]} if "versions" in content else {}
    if isinstance(environment := content.get("environment"), dict):
        found |= environment
    if isinstance(stamp := content.get("stamp"), dict):
        found["gpu"] = {name: stamp[name] for name in ("device", "driver", "cuda") if name in stamp}
    return found


def _milliseconds(value: Measured) -> str:
    return f"{value.median:.4g} [{value.p20:.4g}–{value.p80:.4g}]"


def _error(change: Change) -> str:
    errors = (change.old.error, change.new.error)
    return "" if None in errors else " → ".join(f"{error:.1e}" for error in errors)


def verdict(change: Change, threshold: float, machine: float | None) -> str:
    """In words, for the table."""
    words = []
    if change.slower(threshold):
        alone = change.ours and machine is not None and not change.slower(threshold, machine)
        words.append("slower, as the others are" if alone else "slower")
    elif change.faster(threshold):
        words.append("faster")
    elif abs(math.log(change.ratio)) > math.log1p(threshold / 100):
        words.append("within the noise")
    if change.less_exact:
        words.append("error grew")
    return ", ".join(words)


def table_of(comparison: Comparison, threshold: float, *, every: bool) -> Table:
    """Slowest first; only what moved, or every row."""
    table = Table(title=f"new / old; moved by more than {threshold:g} %" if not every else "new / old")
    for name in ("ratio", "beside others", "old, ms [p20–p80]", "new, ms [p20–p80]", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    table.add_column("row")
    machine = comparison.machine
    for change in comparison.changes:
        words = verdict(change, threshold, machine)
        if words or every:
            beside = f"{change.ratio / machine:.3f}" if change.ours and machine else ""
            times = (_milliseconds(change.old), _milliseconds(change.new))
            table.add_row(f"{change.ratio:.3f}", beside, *times, _error(change), words, change.name)
    return table


def hint(comparison: Comparison, threshold: float) -> str:
    """Conclusion from the other libraries' rows about the machine, in a line."""
    machine = comparison.machine
    if machine is None:
        return "no other library was measured both times: nothing tells whether the machine changed"
    text = f"{comparison.peers} rows of other libraries: median ratio {machine:.3f}"
    if max(machine, 1 / machine) <= 1 + threshold / 100:
        return f"{text}: the machine is as fast as before"
    beside = sum(change.ours and change.slower(threshold, machine) for change in comparison.changes)
    word = "slower" if machine > 1 else "faster"
    return f"{text}: the machine seems {word}; beside it {beside} rows of this package are slower"


def agreement(comparison: Comparison) -> Iterator[str]:
    """Agreement of the ratios: how many were found again, and which were not."""
    if not comparison.ratios:
        return
    differing = {name: both for name, both in comparison.ratios.items() if not both[0].agrees(both[1])}
    found = len(comparison.ratios) - len(differing)
    yield f"{found} of {len(comparison.ratios)} ratios of others to this package agree within their spread"
    for name, (old, new) in differing.items():
        yield f"  not {name}: {old} before, {new} now"


def summary(comparison: Comparison, threshold: float) -> str:
    """One line."""
    ours = [change for change in comparison.changes if change.ours]
    slower = sum(change.slower(threshold) for change in ours)
    faster = sum(change.faster(threshold) for change in ours)
    grown = sum(change.less_exact for change in ours)
    median = f", median ratio {statistics.median(c.ratio for c in ours):.3f}" if ours else ""
    return (
        f"{len(ours)} rows of this package{median}: {slower} slower, {faster} faster, {grown} less exact; "
        f"measured only before {comparison.only_old}, only now {comparison.only_new}"
    )


def main(
    old: Annotated[Path, typer.Argument(help="Results of before.")],
    new: Annotated[Path, typer.Argument(help="Results of now.")],
    threshold: Annotated[float, typer.Option(help="Per cent that a row may be slower.", min=0)] = 5.0,
    every: Annotated[bool, typer.Option("--all", help="Also the rows that did not move.")] = False,
) -> None:
    """Print what moved, the slowest first; exit status 1 where this package is slower or less exact."""
    if not math.isfinite(threshold):
        raise usage_error(f"--threshold: expected a number, got {threshold}")
    contents = []
    for path in (old, new):
        try:
            contents.append(load(path))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise usage_error(f"{path}: {reason}") from error
    before, after = map(_conditions, contents)
    for difference in differences(before, after):
        note(f"warning: environments differ: {difference}")
    comparison = compare(*contents)
    table = table_of(comparison, threshold, every=every)
    console = stdout()
    if table.row_count:
        console.print(table)
    for reason, count in Counter(reason for _, reason in comparison.lost).items():
        first = next(name for name, why in comparison.lost if why == reason)
        console.print(f"no longer measured: {count} of this package, such as {first}: {reason[:120]}", markup=False)
    for line in agreement(comparison):
        console.print(line, markup=False)
    console.print(hint(comparison, threshold))
    console.print(summary(comparison, threshold))
    if comparison.regressed(threshold):
        raise typer.Exit(FAILURE)
