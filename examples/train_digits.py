"""Train a MobileViT-XXS on scikit-learn's handwritten digits: the checkpoint that ships with mobilevit_fast.

    python examples/train_digits.py --output my_digits

takes a few minutes on two cores and needs no network. The same seed, machine and number of threads give the same
weights. The held-out fifth of the data is looked at once, after training, with the weights as they are stored.
"""

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from PIL import ImageOps
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from mobilevit_fast.checkpoints import write_checkpoint
from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.data.digit_images import DIGITS, DigitImages, load_digit_images
from mobilevit_fast.files import user_path, write_atomically
from mobilevit_fast.images import MobileViTImageProcessor
from mobilevit_fast.models import MobileViTForImageClassification

IMAGE_SIZE = 64  # the features after the last stage (stride 32) are still 2x2, one patch of the transformer
BATCH_SIZE = 32
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.1
STORED_DTYPE = torch.float16

# Limits of the random changes to a training picture.
ROTATION = 12  # degrees to either side
SCALES = (0.7, 1.1)  # of the digit, whose original touches the upper and lower edge
SHIFT = 0.1  # of the picture's width or height, to every side
LOWEST_CONTRAST = 0.5  # between ink and paper, where 1 is black to white

CARD = """\
---
license: mit
library_name: mobilevit_fast
pipeline_tag: image-classification
tags: [mobilevit, vision, image-classification]
metrics: [accuracy]
---

# MobileViT-XXS for handwritten digits

A MobileViT of the xx-small size ([arXiv 2110.02178](https://arxiv.org/abs/2110.02178)) that tells handwritten digits
apart. It is small enough to ship with `mobilevit_fast`, so that everything can be tried without a network. It is a
demonstration and a test object, not a product.

```python
import torch
from mobilevit_fast import MobileViTForImageClassification, accelerate
from mobilevit_fast.data import digits_checkpoint
from mobilevit_fast.images import MobileViTImageProcessor

model = MobileViTForImageClassification.from_pretrained(digits_checkpoint()).float()
processor = MobileViTImageProcessor.from_pretrained(digits_checkpoint())
accelerate(model)
with torch.inference_mode():
    logits = model(**processor("digit.png")).logits  # (1, 10)
```

## Input

A picture of one digit, of any size, in colour or grey, upright and roughly filling the picture, light on dark or dark
on light. `preprocessor_config.json` makes it RGB, resizes it to {image_size}x{image_size} (bilinear, the aspect ratio
is not kept) and divides by 255. All three channels are equal in training, so their order hardly matters.

## Training

`examples/train_digits.py --epochs {epochs} --seed {seed}` of the `mobilevit_fast` sources made this folder.

- Data: the 1797 pictures of 8x8 pixels in scikit-learn, which are the test part of *Optical Recognition of Handwritten
  Digits* (E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning Repository), written by 13 people. {trained} of them
  were trained on. A fifth of every class, {held_out} pictures, is held out: drawn with a fixed seed of its own and
  not used for anything but the numbers below.
- Changes to every training picture: rotation by up to {rotation} degrees, size {smallest} to {largest} times, shift by
  up to {shift:.0%}, contrast down to {contrast}, dark and light exchanged in half of the cases.
- From random weights: AdamW, one cycle of the learning rate up to {learning_rate}, weight decay {weight_decay}, batches
  of {batch_size}, label smoothing {label_smoothing}.
- {minutes:.1f} minutes of processor time ({machine}, threads: {threads}); Python {python}, {versions}.

## Results

With the weights as they are stored, computed in float32:

| pictures | right | accuracy |
|---|---|---|
| held-out fifth | {right} of {held_out} | {accuracy:.2%} |
| the same, dark on light | {right_inverted} of {held_out} | {accuracy_inverted:.2%} |

## Files

`model.safetensors` holds {parameters:,} parameters in {dtype} under the names of Hugging Face's MobileViT;
transformers reads this folder as well. The model loads in {dtype}: call `.float()`, as above, to compute in float32.

## Limits

The held-out pictures come from the same 13 writers, scanner and preparation as the training pictures. Expect less from
photographs, thick pens, other ways of writing digits, several digits, or noise, and a confident digit for
pictures of anything else.
"""


class Score(NamedTuple):
    """How many pictures of how many were told right."""

    right: int
    count: int

    @property
    def accuracy(self) -> float:
        """Between 0 and 1."""
        return self.right / self.count


def make_processor() -> MobileViTImageProcessor:
    """The preprocessing of training and inference alike."""
    return MobileViTImageProcessor(
        do_convert_rgb=True,
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        resample=2,  # bilinear
        do_center_crop=False,
        do_flip_channel_order=False,
    )


def make_config() -> MobileViTConfig:
    """The xx-small preset for ten classes called "0" to "9"."""
    return MobileViTConfig.preset(
        "xx_small", image_size=IMAGE_SIZE, id2label={digit: str(digit) for digit in range(DIGITS)}
    )


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change every picture at random: rotation, size, place, contrast, and dark for light.

    Args:
        images: (N, 1, H, W) in [0, 1], white on black.

    Returns:
        (N, 1, H, W) in [0, 1].
    """
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count).uniform_(low, high, generator=generator)

    angle, scale = torch.deg2rad(uniform(-ROTATION, ROTATION)), uniform(*SCALES)
    # Where each output pixel is read, in coordinates that run from -1 to 1: hence twice the shift.
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    x, y = uniform(-2 * SHIFT, 2 * SHIFT), uniform(-2 * SHIFT, 2 * SHIFT)
    matrices = torch.stack([torch.stack([cos, -sin, x], -1), torch.stack([sin, cos, y], -1)], 1)  # (N, 2, 3)
    grid = torch.nn.functional.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(images, grid, align_corners=False)

    contrast = uniform(LOWEST_CONTRAST, 1)
    darkest = uniform(0, 1) * (1 - contrast)
    result = darkest.view(-1, 1, 1, 1) + contrast.view(-1, 1, 1, 1) * moved
    inverted = uniform(0, 1).view(-1, 1, 1, 1) < 0.5
    return torch.where(inverted, 1 - result, result)


def train(images: Tensor, labels: Tensor, epochs: int, seed: int, console: Console) -> MobileViTForImageClassification:
    """A trained model, in evaluation mode.

    Args:
        images: (N, 1, H, W) float32 in [0, 1].
        labels: (N,) int64.
        epochs: times to go through the pictures.
        seed: of the first weights, the order of the pictures, their changes and the dropout.
        console: for the progress.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = MobileViTForImageClassification(make_config()).to(memory_format=torch.channels_last)
    steps = -(-len(images) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * steps, pct_start=0.15)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    model.train()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=epochs * steps)
        for epoch in range(1, epochs + 1):
            loss_sum, right = 0.0, 0
            for batch in torch.randperm(len(images), generator=generator).split(BATCH_SIZE):
                pixel_values = augment(images[batch], generator).expand(-1, 3, -1, -1)
                logits = model(pixel_values).logits  # (batch, 10)
                loss = torch.nn.functional.cross_entropy(logits, labels[batch], label_smoothing=LABEL_SMOOTHING)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                loss_sum += loss.item() * len(batch)
                right += int((logits.argmax(-1) == labels[batch]).sum())
                progress.advance(task)
            progress.console.print(
                f"epoch {epoch:3d}  loss {loss_sum / len(images):.3f}  accuracy on changed training pictures "
                f"{right / len(images):.1%}"
            )
    return model.eval()


@torch.inference_mode()
def evaluate(
    model: MobileViTForImageClassification,
    processor: MobileViTImageProcessor,
    digits: DigitImages,
    inverted: bool = False,
) -> Score:
    """Count the pictures that the model tells right, as they are or with dark and light exchanged."""
    pictures = [ImageOps.invert(image) for image in digits.images] if inverted else digits.images
    labels = torch.from_numpy(digits.labels)
    batches = processor(pictures)["pixel_values"].split(BATCH_SIZE)
    predictions = torch.cat([model(batch).logits.argmax(-1) for batch in batches])
    return Score(int((predictions == labels).sum()), len(labels))


def settings() -> dict[str, object]:
    """Settings of this script and of the machine, for the model card."""
    return {
        "image_size": IMAGE_SIZE,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        "label_smoothing": LABEL_SMOOTHING,
        "rotation": ROTATION,
        "smallest": SCALES[0],
        "largest": SCALES[1],
        "shift": SHIFT,
        "contrast": LOWEST_CONTRAST,
        "dtype": str(STORED_DTYPE).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pillow", "scikit-learn")),
    }


def main(
    output: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")],
    epochs: Annotated[int, typer.Option(min=1, help="Times to go through the training pictures.")] = 24,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the changes; not of the split.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Train on the first pictures only, to try the script.")
    ] = None,
) -> None:
    """Train a MobileViT-XXS on handwritten digits and write it with its model card."""
    console = Console()
    training, held_out = load_digit_images()
    if limit is not None:
        training = training.select(np.arange(min(limit, len(training.images))))
    processor = make_processor()
    images = processor(training.images)["pixel_values"][:, :1]  # the three channels are equal

    start = time.process_time()
    model = train(images, torch.from_numpy(training.labels), epochs, seed, console)
    minutes = (time.process_time() - start) / 60

    output = user_path(output)
    write_checkpoint(model.to(STORED_DTYPE), output, processor=processor)
    stored = MobileViTForImageClassification.from_pretrained(output).float()
    score = evaluate(stored, processor, held_out)
    inverted = evaluate(stored, processor, held_out, inverted=True)
    card = CARD.format(
        **settings(),
        epochs=epochs,
        seed=seed,
        trained=len(training.images),
        held_out=score.count,
        minutes=minutes,
        right=score.right,
        accuracy=score.accuracy,
        right_inverted=inverted.right,
        accuracy_inverted=inverted.accuracy,
        parameters=stored.num_parameters(),
    )
    write_atomically(output / "README.md", card.encode())
    console.print(
        f"{score.right} of {score.count} held-out pictures right ({score.accuracy:.2%}), "
        f"{inverted.right} with dark and light exchanged; {minutes:.1f} minutes of processor time; written to {output}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)
