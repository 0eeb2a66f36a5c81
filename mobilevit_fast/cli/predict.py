"""`mobilevit-fast predict`: any number of images into a folder of results."""

import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mobilevit_fast.cli.console import (
    FAILURE,
    INTERRUPTED,
    Failed,
    note,
    say,
    say_json,
    stderr,
    usage_error,
)
from mobilevit_fast.cli.loading import announce_default, engine_of, load, parse_device, parse_dtype
from mobilevit_fast.cli.options import Accelerate, Device, Dtype, Json, Model, Preprocessing, Processor
from mobilevit_fast.engine import FORMATS, OUTPUTS, PREPROCESSING_MODES, EngineError, Prediction, RunReport
from mobilevit_fast.engine.errors import described
from mobilevit_fast.engine.loading import DIGITS
from mobilevit_fast.engine.results import checked_folder
from mobilevit_fast.engine.results.formats import format_of
from mobilevit_fast.engine.sources import count, is_missing
from mobilevit_fast.files import user_path, write_atomically

_SECONDS_BETWEEN_LINES = 10.0
_ERRORS_TOLD = 10
"""Failures that are said one by one; all of them are rows of the results."""


def predict_command(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, glob patterns, lists of paths (.txt, .csv, .parquet), .tar shards, URLs, or - for "
            "paths from standard input."
        ),
    ],
    model: Model = DIGITS,
    out: Annotated[
        Path, typer.Option(help="Folder of results; what is there of the same work is gone on with.")
    ] = Path("results"),
    format: Annotated[str, typer.Option(help=f"Format of the results: {', '.join(FORMATS)}.")] = FORMATS[0],
    top_k: Annotated[int, typer.Option(help="Classes to name for each image.")] = 5,
    output: Annotated[
        str | None,
        typer.Option(
            help=f"Answers to write, such as label,score; of {', '.join(OUTPUTS)}. By default what the model has."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in one call of the model.")] = None,
    decode_threads: Annotated[int | None, typer.Option(help="Threads that decode; one for each core.")] = None,
    device: Device = None,
    dtype: Dtype = "float32",
    accelerate: Accelerate = True,
    preprocessing: Preprocessing = PREPROCESSING_MODES[0],
    processor: Processor = None,
    shard: Annotated[str | None, typer.Option(help="Such as 3/16: every 16th source from number 3 on.")] = None,
    limit: Annotated[int | None, typer.Option(help="Sources at most.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results that are there.")] = False,
    max_errors: Annotated[int | None, typer.Option(help="Images that may fail before it ends.")] = None,
    stats: Annotated[Path | None, typer.Option(help="File to write times and rates to, as JSON.")] = None,
    json_output: Json = False,
) -> None:
    """Classify or segment any number of images into a folder of results, and go on after an interruption.

    The exit status is 1 if any image that is named failed, now or in an earlier run into the folder; its row says why.
    """
    for option, value in (("--top-k", top_k), ("--batch-size", batch_size), ("--decode-threads", decode_threads)):
        if value is not None and value < 1:
            raise usage_error(f"{option}: expected a positive number, got {value}")
    for option, value in (("--limit", limit), ("--max-errors", max_errors)):
        if value is not None and value < 0:
            raise usage_error(f"{option}: expected a number of at least 0, got {value}")
    for option, text, allowed in (
        ("--format", format, FORMATS),
        ("--preprocessing", preprocessing, PREPROCESSING_MODES),
    ):
        if text not in allowed:
            raise usage_error(f"{option}: expected {', '.join(allowed)}, got {text!r}")
    outputs = None if output is None else [name.strip() for name in output.split(",")]
    for name in outputs or ():
        if name not in OUTPUTS:
            raise usage_error(f"--output: expected some of {', '.join(OUTPUTS)}, got {name!r}")
    try:
        format_of(format, outputs or OUTPUTS[:1], top_k)
    except ValueError as error:
        raise usage_error(f"--format: {error}") from error
    except ImportError as error:
        raise Failed(f"--format: {error}, or go without it: --format jsonl") from error
    if "" in sources:
        raise usage_error("expected paths, got an empty one")
    if all(map(is_missing, sources)):
        raise usage_error(f"expected images, found no file, folder or match of {', '.join(sources)}")
    try:
        checked_folder(out)
    except ValueError as error:
        raise usage_error(f"--out: {error}") from error
    if user_path(out).exists() and not user_path(out).is_dir():
        raise usage_error(f"--out: expected a folder, got a file: {out}")
    if stats is not None and (user_path(stats).is_dir() or not user_path(stats).absolute().parent.is_dir()):
        raise usage_error(f"--stats: expected a file in a folder that exists, got {stats}")
    part = _parse_shard(shard)
    compute_dtype, compute_device = parse_dtype(dtype), parse_device(device)
    announce_default(context)
    loaded = load(model, None, processor=processor, device=compute_device, dtype=compute_dtype, accelerated=False)
    options = {"preprocessing": preprocessing, "outputs": outputs, "top_k": top_k, "acceleration": accelerate}
    engine = engine_of(loaded, batch_size, decode_threads, **options)
    with _interrupted_once(), _Progress(sources, part, limit) as progress:
        try:
            report = engine.run(
                sources,
                user_path(out),
                format=format,
                overwrite=overwrite,
                retry_failed=retry_failed,
                shard=part,
                limit=limit,
                max_errors=max_errors,
                progress=progress,
                passed_over=progress.passed_over,
            )
        except KeyboardInterrupt:
            raise Failed(
                f"interrupted after {progress.done} images; the same command goes on from there", INTERRUPTED
            ) from None
        except OSError as error:  # of the results: one of an image is a row
            raise Failed(f"--out {out}: {described(error).removeprefix(f'{out}: ')}") from error
        except EngineError as error:
            raise Failed(f"{error}; --max-errors allows more") from error
    if json_output:
        say_json({"out": str(out), **report.to_dict()})
    else:
        say(_summary(report, out))
    if stats is not None:
        try:
            write_atomically(user_path(stats).absolute(), f"{json.dumps(report.to_dict(), indent=2)}\n".encode())
        except OSError as error:
            raise Failed(f"--stats: {described(error)}; the results are in {out} all the same") from error
    if report.failed or report.skipped_failed:
        raise typer.Exit(FAILURE)


def _summary(report: RunReport, out: Path) -> str:
    images = "image" if report.images == 1 else "images"
    before = f", {report.skipped_failed} of them failed: --retry-failed" if report.skipped_failed else ""
    skipped = f" ({report.skipped} were there already{before})" if report.skipped else ""
    failed = f", {report.failed} failed" if report.failed else ""
    bound = f", bound by {report.bound_by}" if report.images else ""
    return (
        f"{report.images} {images}{skipped}{failed} in {report.seconds:.1f} s -> {out}: "
        f"{report.images_per_second:.1f} images/s{bound}"
    )


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise usage_error(f"--shard: expected a number and how many there are, from 0/16 to 15/16, got {text!r}")
    return int(index), int(count)


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """SIGTERM is as Ctrl-C within: what is in hand is written, and no further signal of the two prevents that."""

    def interrupt(*_: Any) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """Progress, on stderr: a bar on a terminal, a line now and then elsewhere. Nobody has to read it.

    Args:
        sources, shard, limit: of the run; they are counted meanwhile, where that reads no image.
    """

    def __init__(self, sources: Sequence[str], shard: tuple[int, int] | None, limit: int | None) -> None:
        self.done = self.failed = self._done_before = 0
        self._found: int | None = None
        self._start = self._said = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if stderr().is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("[red]{task.fields[failed]}"),
            )
            self._bar = Progress(*columns, console=stderr(), transient=True)
            self._task = self._bar.add_task("predicting", total=None, rate="", failed="")
        self._counting = threading.Thread(target=self._count, args=(sources, shard, limit), daemon=True)
        self._counting.start()

    def __enter__(self) -> "_Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def _total(self) -> int | None:
        """Images to answer, once that is known."""
        return None if self._found is None else self._found - self._done_before

    def passed_over(self, _: str) -> None:
        """Count a source that an earlier run had answered."""
        self._done_before += 1

    def __call__(self, prediction: Prediction) -> None:
        """Count one answer."""
        self.done += 1
        with suppress(OSError):  # of a stderr that is closed: the results do not depend on it
            self._tell(prediction)

    def _tell(self, prediction: Prediction) -> None:
        if prediction.error is not None:
            self.failed += 1
            if self.failed <= _ERRORS_TOLD:
                note(f"error: {prediction.source}: {prediction.error}")
            elif self.failed == _ERRORS_TOLD + 1:
                note("error: further failures are in the results alone")
        now = time.monotonic()
        rate = f"{self.done / max(now - self._start, 1e-9):.1f} images/s"
        if self._bar is not None and self._task is not None:
            failed = f"{self.failed} failed" if self.failed else ""
            self._bar.update(self._task, completed=self.done, total=self._total, rate=rate, failed=failed)
        elif now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            total = self._total
            of = "" if total is None else f" of {total}"
            note(f"{self.done}{of} images, {rate}, {self.failed} failed{self._time_left(now)}")

    def _time_left(self, now: float) -> str:
        total = self._total
        if total is None or total < self.done:
            return ""
        return f", {(total - self.done) * (now - self._start) / self.done:.0f} s left"

    def _count(self, sources: Sequence[str], shard: tuple[int, int] | None, limit: int | None) -> None:
        with suppress(OSError, ValueError, ImportError):  # which the run itself tells
            self._found = count(sources, shard=shard, limit=limit)
