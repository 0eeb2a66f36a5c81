"""The commands: arguments, and what is printed where."""

import os
from pathlib import Path
from typing import Annotated, cast

import torch
import typer
from PIL import Image
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from mobilevit_fast import info, limits
from mobilevit_fast.acceleration import plan as plan_acceleration
from mobilevit_fast.checkpoints import NAMINGS, CheckpointError, build_model, write_checkpoint
from mobilevit_fast.checkpoints.sources import CONFIG_FILE, WEIGHTS_FILE
from mobilevit_fast.cli import overlay
from mobilevit_fast.cli.bench_engine import bench_engine_command
from mobilevit_fast.cli.console import (
    FAILURE,
    INTERRUPTED,
    Commands,
    Failed,
    note,
    percent,
    printable,
    say,
    say_json,
    stderr,
    stdout,
    usage_error,
)
from mobilevit_fast.cli.labels import Labels
from mobilevit_fast.cli.loading import announce_default, find_processor, load, parse_device, parse_dtype
from mobilevit_fast.cli.options import Accelerate, Device, Dtype, Json, Model, Processor
from mobilevit_fast.cli.photos import collect
from mobilevit_fast.cli.predict import predict_command
from mobilevit_fast.cli.predictions import Answer, Results, classify
from mobilevit_fast.engine.loading import DIGITS, read_source
from mobilevit_fast.engine.model import NOT_FINITE
from mobilevit_fast.export import ONNX_MODELS, ExportError, export_onnx
from mobilevit_fast.files import encoded_picture, find, user_path, write_atomically
from mobilevit_fast.images import ImageError
from mobilevit_fast.images.inputs import read_image
from mobilevit_fast.images.transforms import to_bytes
from mobilevit_fast.version import __version__

app = typer.Typer(
    cls=Commands,
    help="Classify and segment photos with MobileViT; convert its checkpoints.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"mobilevit-fast {__version__}")
        raise typer.Exit


@app.callback()
def options(
    limits_to_set: Annotated[
        list[str] | None,
        typer.Option(
            "--set-limit",
            metavar="NAME=NUMBER",
            help="A limit of mobilevit_fast.limits to raise; may be given several times.",
        ),
    ] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where in the program an error arose.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Classify and segment photos with MobileViT; convert its checkpoints."""
    for one in limits_to_set or ():
        name, _, number = one.partition("=")
        try:
            limits.set_limit(name, int(number))
        except ValueError as error:
            raise usage_error(f"--set-limit: expected NAME=NUMBER, got {one!r}: {error}") from error


@app.command("classify")
def classify_command(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Image files, and folders that are searched for images.")],
    model: Model = DIGITS,
    labels: Annotated[
        Path | None, typer.Option(help="CSV with columns image and label (index or name): also print the accuracy.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Classes to name for each image.")] = 1,
    json_output: Json = False,
    accelerate: Accelerate = True,
    dtype: Dtype = "float32",
    device: Device = None,
    batch_size: Annotated[int, typer.Option(help="Images in one call of the model.")] = 16,
    processor: Processor = None,
) -> None:
    """Say what photos show. The exit status is 1 if any of them could not be read."""
    for option, value in (("--top-k", top_k), ("--batch-size", batch_size)):
        if value < 1:
            raise usage_error(f"{option}: expected a positive number, got {value}")
    compute_dtype, compute_device = parse_dtype(dtype), parse_device(device)
    photos, problems = collect(paths)
    for problem in problems:
        note(f"error: {problem.path}: {problem.error}")
    if not photos:
        if json_output:
            say_json(Results({}, problems).to_dict())
        raise typer.Exit(FAILURE)

    announce_default(context)
    loaded = load(
        model,
        "classification",
        processor=processor,
        device=compute_device,
        dtype=compute_dtype,
        accelerated=accelerate,
    )
    truth = None if labels is None else Labels(labels, loaded.model.config.id2label, photos)
    if truth is not None and all(truth.of(photo) is None for photo in photos):
        raise ValueError(f"{labels}: expected labels of the images given, got none of them")

    bar = Progress(console=stderr(), transient=True, disable=not stderr().is_terminal)
    with bar as progress:
        task = progress.add_task("classifying", total=len(photos))

        def advance(answer: Answer) -> None:
            progress.advance(task)
            if answer.error is not None:
                note(f"error: {answer.photo.path}: {answer.error}")

        results = classify(
            photos, loaded, top_k=top_k, batch_size=batch_size, labels=truth, advance=advance, problems=problems
        )

    if results.interrupted:
        note(f"error: interrupted after {len(results.answers)} of {len(photos)} images")
    if json_output:
        say_json(results.to_dict())
    else:
        if results.failed < len(results.answers):
            stdout().print(*results.to_tables(), sep="\n")
        if results.shortened:
            say("every image: --json, or `mobilevit-fast predict` for a folder of results")
        accuracy = results.accuracy_line()
        if accuracy is not None:
            say(accuracy)
    if results.interrupted:
        raise typer.Exit(INTERRUPTED)
    if problems or results.failed:
        raise typer.Exit(FAILURE)


app.command("predict")(predict_command)
app.command("bench-engine")(bench_engine_command)


@app.command("segment")
def segment_command(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    model: Model,
    output: Annotated[Path, typer.Option(help="Picture to write: the photo with its classes in colour, and a legend.")],
    json_output: Json = False,
    accelerate: Accelerate = True,
    dtype: Dtype = "float32",
    device: Device = None,
    processor: Processor = None,
) -> None:
    """Say which part of a photo shows what."""
    compute_dtype, compute_device = parse_dtype(dtype), parse_device(device)
    image, output = user_path(image), user_path(output)
    kind = Image.registered_extensions().get(output.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise usage_error(f"--output: expected the name of a picture such as overlay.png, got {output.name!r}")
    if os.path.realpath(output) == os.path.realpath(image):  # unlike resolve(), also of links that lead nowhere
        raise usage_error(f"--output: expected another file than the photo, got {output}")
    if not output.absolute().parent.is_dir():
        raise usage_error(f"--output: expected a file in a folder that exists, got {output}")
    photo = _read_photo(image)
    loaded = load(
        model,
        "segmentation",
        processor=processor,
        device=compute_device,
        dtype=compute_dtype,
        accelerated=accelerate,
    )
    if loaded.processor.do_convert_rgb:
        photo = _read_photo(image, over_white=True)
    # The whole photo, not its centre: then the classes of the resized image cover the photo exactly.
    inputs = loaded.processor(photo, do_center_crop=False).to(compute_device, compute_dtype)
    with torch.inference_mode():
        outputs = loaded.model(**inputs)
        outputs.logits = outputs.logits.float().cpu()
    if not outputs.logits.isfinite().all():
        raise ValueError(f"{image}: {NOT_FINITE}")
    maps = loaded.processor.post_process_semantic_segmentation(outputs, target_sizes=[(photo.height, photo.width)])
    classes = cast(torch.Tensor, maps[0])  # (height, width) of the photo
    found = overlay.shares(classes, loaded.model.config.id2label)
    write_atomically(output, encoded_picture(overlay.paint(photo, classes, found), kind))

    if json_output:
        values = [{"label": one.label, "index": one.index, "share": one.share} for one in found]
        say_json({"path": str(image), "output": str(output), "classes": values})
        return
    table = Table("class", "index", "share of pixels")
    for one in found:
        table.add_row(Text(printable(one.label)), str(one.index), percent(one.share))
    stdout().print(table)


def _read_photo(path: Path, over_white: bool = False) -> Image.Image:
    try:
        pixels = to_bytes(read_image(path, convert_rgb=over_white, data_format=None))  # (3, height, width)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    return Image.fromarray(pixels.transpose(1, 2, 0))


@app.command("info")
def info_command(json_output: Json = False) -> None:
    """Print versions, devices, and which native libraries are loaded or why not."""
    raise typer.Exit(info.main(["--json"] if json_output else []))


@app.command("convert")
def convert_command(
    source: Annotated[str, typer.Argument(help="Folder, weights file or hub id, of transformers, ml-cvnets or timm.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write to, made if it does not exist.")],
    naming: Annotated[str, typer.Option(help=f"Whose names of parameters to write: {', '.join(NAMINGS)}.")] = NAMINGS[
        0
    ],
    processor: Processor = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint that is in the folder already.")] = False,
    allow_unused: Annotated[
        bool, typer.Option("--allow-unused", help="Leave out tensors that no MobileViT has, and name them.")
    ] = False,
) -> None:
    """Write a checkpoint under the names of another code base, with its configuration and image settings."""
    if naming not in NAMINGS:
        raise usage_error(f"--naming: expected {', '.join(NAMINGS)}, got {naming!r}")
    folder = user_path(folder)
    if os.path.realpath(folder) == os.path.realpath(user_path(source)):
        raise usage_error(f"expected another folder than the checkpoint's own, got {folder}")
    present = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if find(folder / name) is not None]
    if present and not force:
        raise usage_error(f"{folder}: expected a folder without a checkpoint, found {' and '.join(present)} (--force)")
    checkpoint = read_source(source)
    settings = find_processor(source, checkpoint, processor)
    try:
        model = build_model(checkpoint, allow_unused=allow_unused)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("allow_unused=True", "--allow-unused")) from error
    write_checkpoint(model, folder, naming=naming, processor=settings)
    found = checkpoint.naming if checkpoint.key is None else f"{checkpoint.naming}, {checkpoint.key}"
    say(f"{checkpoint.path} ({found}) -> {folder} ({naming})")


@app.command("export")
def export_command(
    output: Annotated[Path, typer.Argument(help="File to write, such as model.onnx.")],
    model: Model = DIGITS,
    image_size: Annotated[
        int | None, typer.Option(help="Height and width of the images; by default the model's own.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images in one call; by default any number.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    json_output: Json = False,
) -> None:
    """Write a model as one ONNX file, and compare it with the model in ONNX Runtime."""
    for option, value in (("--image-size", image_size), ("--batch", batch)):
        if value is not None and value < 1:
            raise usage_error(f"{option}: expected a positive number, got {value}")
    output = user_path(output)
    if output.suffix.lower() != ".onnx" or output.is_dir():
        raise usage_error(f"expected the name of a file such as model.onnx, got {output}")
    if not output.absolute().parent.is_dir():
        raise usage_error(f"expected a file in a folder that exists, got {output}")
    if output.exists() and not force:
        raise usage_error(f"{output}: expected a file that does not exist yet, found one (--force)")
    checkpoint = read_source(model)
    exported = build_model(checkpoint)
    if not isinstance(exported, ONNX_MODELS):
        raise ValueError(f"{checkpoint.path}: expected a model with a head, got one without")
    try:
        written = export_onnx(exported, output, image_size=image_size, batch="dynamic" if batch is None else batch)
    except ExportError as error:
        raise Failed(str(error)) from error
    if written.error is None:
        note("not compared with the model: that takes onnxruntime (pip install onnxruntime)")
    if json_output:
        say_json(written.to_dict())
        return
    compared = "" if written.error is None else f", ONNX Runtime errs by {written.error:.1e} of the largest logit"
    say(
        f"{checkpoint.path} -> {output}: pixel_values {_sides(written.input_shape)} to logits "
        f"{_sides(written.output_shape)}, {written.size / 1e6:.1f} MB{compared}"
    )


def _sides(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


@app.command("plan")
def plan_command(
    model: Model = DIGITS, json_output: Json = False, dtype: Dtype = "float32", device: Device = None
) -> None:
    """Print what acceleration would replace in a model, by what, and what it would leave and why."""
    compute_dtype, compute_device = parse_dtype(dtype), parse_device(device)
    report = plan_acceleration(build_model(read_source(model), dtype=compute_dtype).to(compute_device))
    if json_output:
        say_json(report.to_list())
    else:
        stdout().print(report)


def main() -> None:
    """Run the command line of this process."""
    app()
