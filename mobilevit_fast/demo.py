"""`python -m mobilevit_fast.demo`: the shipped digits model on held-out digits, with and without acceleration."""

import csv
import io
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

import mobilevit_fast
from mobilevit_fast.data import digits_checkpoint
from mobilevit_fast.data.digit_images import DIGITS, DigitImages, load_digit_images
from mobilevit_fast.files import encoded_picture, write_atomically, write_together
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification

REQUIRED_ACCURACY = 0.97
BATCH_SIZE = 32
TIMED_BATCHES = 3
SAMPLES_PER_DIGIT = 2

_PICTURE_FILE = "demo_predictions.png"
_COLUMNS, _ROWS = 12, 5  # of the picture


class Comparison(NamedTuple):
    """Answers of the two models, and how long they took.

    Attributes:
        reference: (N, 10) float32, logits of the model as it is.
        accelerated: (N, 10) float32, logits of the accelerated model.
        labels: (N,) int64, the digits on the pictures.
        reference_seconds, accelerated_seconds: of one picture in a batch of BATCH_SIZE, the median over the rounds.
    """

    reference: Tensor
    accelerated: Tensor
    labels: Tensor
    reference_seconds: float
    accelerated_seconds: float

    @property
    def reference_accuracy(self) -> float:
        """Share of right answers without acceleration."""
        return _share(self.reference.argmax(-1) == self.labels)

    @property
    def accelerated_accuracy(self) -> float:
        """Share of right answers with acceleration."""
        return _share(self.accelerated.argmax(-1) == self.labels)

    @property
    def agreement(self) -> float:
        """Share of pictures for which both give the same answer."""
        return _share(self.reference.argmax(-1) == self.accelerated.argmax(-1))

    @property
    def largest_difference(self) -> float:
        """Largest absolute difference between their logits."""
        return (self.reference - self.accelerated).abs().max().item()

    @property
    def failures(self) -> list[str]:
        """Failed expectations, one sentence each."""
        found = [
            f"expected at least {REQUIRED_ACCURACY:.0%} accuracy {name} acceleration, got {accuracy:.2%}"
            for name, accuracy in (("without", self.reference_accuracy), ("with", self.accelerated_accuracy))
            if accuracy < REQUIRED_ACCURACY
        ]
        if self.agreement < 1:
            found.append(f"expected the same answers with and without acceleration, got {self.agreement:.2%}")
        return found


def _share(marks: Tensor) -> float:
    return marks.double().mean().item()


@torch.inference_mode()
def compare(
    reference: MobileViTForImageClassification,
    accelerated: MobileViTForImageClassification,
    pixel_values: Tensor,
    labels: Tensor,
    rounds: int,
) -> Comparison:
    """Run both models on the same pictures, taking turns so that a busy machine slows both alike.

    Args:
        reference: the model as it is, in evaluation mode.
        accelerated: the same with fused regions.
        pixel_values: (N, 3, H, W) float32.
        labels: (N,) int64.
        rounds: timed passes of each model over the first TIMED_BATCHES batches, after one over all that is not timed.
    """
    batches = pixel_values.split(BATCH_SIZE)
    timed = batches[:TIMED_BATCHES]
    models = (reference, accelerated)
    logits = [torch.cat([model(batch).logits for batch in batches]) for model in models]  # (N, 10) each
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for model, taken in zip(models, seconds, strict=True):
            start = time.perf_counter()
            for batch in timed:
                model(batch)
            taken.append((time.perf_counter() - start) / sum(map(len, timed)))
    return Comparison(
        reference=logits[0],
        accelerated=logits[1],
        labels=labels,
        reference_seconds=statistics.median(seconds[0]),
        accelerated_seconds=statistics.median(seconds[1]),
    )


def results_table(result: Comparison) -> Table:
    """Accuracy and time of both models, and how far apart they are."""
    count = len(result.labels)
    table = Table(title=f"{count} held-out digits", title_justify="left")
    for heading in ("", "without acceleration", "with acceleration"):
        table.add_column(heading, justify="right" if heading else "left")
    accuracies = (result.reference_accuracy, result.accelerated_accuracy)
    seconds = (result.reference_seconds, result.accelerated_seconds)
    table.add_row("right answers", *(f"{round(share * count)} of {count} ({share:.2%})" for share in accuracies))
    table.add_row(f"time per picture, {BATCH_SIZE} at once", *(f"{1e3 * each:.3f} ms" for each in seconds))
    table.add_section()
    table.add_row("same answer", "", f"{round(result.agreement * count)} of {count} ({result.agreement:.2%})")
    table.add_row("largest difference of logits", "", f"{result.largest_difference:.1e}")
    return table


def write_predictions(digits: DigitImages, predictions: np.ndarray, path: Path) -> None:
    """Draw some held-out digits with their predictions, every wrong one among them and marked.

    Args:
        digits: the pictures.
        predictions: (len(digits.images),) digits.
        path: of the PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        # The object rather than pyplot, which would pick a backend for the whole process.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib, which is not installed (pip install matplotlib)") from error

    wrong = predictions != digits.labels
    # A stable sort puts the wrong ones first; what fits is then shown in the order of the data set.
    shown = np.sort(np.argsort(~wrong, kind="stable")[: _COLUMNS * _ROWS])
    figure = Figure(figsize=(_COLUMNS * 0.95, _ROWS * 1.2 + 0.7), dpi=120, layout="constrained")
    figure.suptitle(
        f"MobileViT-XXS on held-out digits: {np.sum(~wrong)} of {len(wrong)} right\n"
        f"{len(shown)} are shown, the wrong ones among them; above each the predicted digit, red where it is wrong"
    )
    for axes, position in zip(figure.subplots(_ROWS, _COLUMNS).flat, shown, strict=False):
        axes.imshow(digits.images[position], cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
        axes.set_xticks([])
        axes.set_yticks([])
        text = str(predictions[position])
        if wrong[position]:
            text += f" (is {digits.labels[position]})"
            axes.spines[:].set(color="tab:red", linewidth=3)
        axes.set_title(text, color="tab:red" if wrong[position] else "black", fontsize=10)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    write_atomically(path, file.getvalue())


def write_samples(digits: DigitImages, folder: Path, size: int) -> None:
    """Write two pictures of every digit as PNG files, with `labels.csv` beside them.

    Args:
        digits: the pictures to take them from.
        folder: made if it does not exist.
        size: pixels per side, enlarged just as the model's image processor would.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, bytes] = {}
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["image", "label", "class"])
    for digit in range(DIGITS):
        for position in np.flatnonzero(digits.labels == digit)[:SAMPLES_PER_DIGIT]:
            name = f"{digit}_{digits.rows[position]:04d}.png"
            picture = digits.images[position].resize((size, size), Image.Resampling.BILINEAR)
            contents[name] = encoded_picture(picture, "PNG")
            writer.writerow([name, digit, digit])
    write_together(folder, {**contents, "labels.csv": table.getvalue().encode()})


def run(output: Path, rounds: int, console: Console) -> Comparison:
    """Do everything that the command does and return the measurements.

    Args:
        output: folder for the picture and the samples, made if it does not exist.
        rounds: timed passes of each model.
        console: where the results are printed.
    """
    _, held_out = load_digit_images()
    folder = digits_checkpoint()
    processor = MobileViTImageProcessor.from_pretrained(folder)
    # The file holds float16; arithmetic is in float32.
    reference = MobileViTForImageClassification.from_pretrained(folder).float()
    accelerated = mobilevit_fast.accelerate(MobileViTForImageClassification.from_pretrained(folder).float())

    console.print(
        f"{folder}: {reference.num_parameters():,} parameters; threads: {torch.get_num_threads()}", soft_wrap=True
    )
    report = mobilevit_fast.report(accelerated)
    backends = Counter(" and ".join(sorted(set(region.backends.values()))) for region in report.fused)
    counts = ", ".join(f"{count} by {names}" for names, count in backends.most_common())
    console.print(f"{len(report.fused)} of {len(report)} regions fused: {counts}")
    for region in report.skipped:
        console.print(f"  skipped {region.path}: {region.reason}")

    pixel_values = processor(held_out.images)["pixel_values"]
    result = compare(reference, accelerated, pixel_values, torch.from_numpy(held_out.labels), rounds)
    console.print(results_table(result))

    output.mkdir(parents=True, exist_ok=True)
    picture, samples = output / _PICTURE_FILE, output / "digits"
    write_predictions(held_out, result.accelerated.argmax(-1).numpy(), picture)
    write_samples(held_out, samples, size=processor.size["height"])
    console.print(f"predictions: {picture}", soft_wrap=True)
    console.print(f"{DIGITS * SAMPLES_PER_DIGIT} pictures to try, with labels.csv: {samples}", soft_wrap=True)
    return result


def main(
    output: Annotated[Path, typer.Option(help="Folder for the picture and the samples.")] = Path("build/demo"),
    rounds: Annotated[int, typer.Option(min=1, help="Timed passes of each model.")] = 5,
) -> None:
    """Classify held-out digits with and without acceleration and draw the predictions."""
    errors = Console(stderr=True)
    try:
        result = run(output, rounds, Console())
    except ImportError as error:
        errors.print(f"demo: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    for failure in result.failures:
        errors.print(f"demo: {failure}", style="red", markup=False)
    if result.failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
