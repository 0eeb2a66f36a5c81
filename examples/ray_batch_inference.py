"""Classify a folder of images into Parquet files, on all machines of a Ray cluster.

    python examples/ray_batch_inference.py photos/ answers/ --model apple/mobilevit-small
    python examples/ray_batch_inference.py s3://bucket/photos s3://bucket/answers --actors 16 --gpus 1 --cpus 8

takes `pip install 'ray[data,serve]' pyarrow`. Ray finds its cluster by RAY_ADDRESS, and makes one of this machine alone
where there is none; folders are then any of this machine, else such as all machines see. Machines read the encoded
images, actors decode and classify them, and nothing else goes from one to the other. Images that cannot be read are
rows that say why. The same command goes on after an interruption, and does nothing more once it is done.
"""

import math
from pathlib import Path
from typing import Annotated

import ray
import typer
from ray.data.checkpoint import CheckpointConfig

from mobilevit_fast.engine.sources import SUFFIXES
from mobilevit_fast.integrations.ray import Classifier

CPUS_OF_FILES = 0.5  # of a task that reads or writes, which mostly waits
CPUS_BESIDE = 1 + CPUS_OF_FILES  # the actor that leaves out what is done, and one such task


def main(
    images: Annotated[str, typer.Argument(help="Folder or URL.")],
    out: Annotated[str, typer.Argument(help="Folder or URL, made if it is not there.")],
    model: Annotated[str, typer.Option(help="Folder, weights file, hub id, or digits.")] = "digits",
    outputs: Annotated[str | None, typer.Option(help="Such as label,score,embedding; or mask.")] = None,
    actors: Annotated[int, typer.Option(help="Engines, over all machines.")] = 1,
    cpus: Annotated[
        float | None, typer.Option(help="Of each actor, which decodes with as many threads; by default an equal share.")
    ] = None,
    gpus: Annotated[float, typer.Option(help="Of each actor; 0.5 lets two share one.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images that an actor is given at once.")] = 256,
) -> None:
    """Classify a folder of images into Parquet files, on all machines of a Ray cluster."""
    images, out = (name if "://" in name else str(Path(name).expanduser().absolute()) for name in (images, out))
    ray.init()
    there = ray.cluster_resources().get("CPU", 0)
    share = (there - CPUS_BESIDE) / actors
    cpus = cpus or (math.floor(share) if share >= 1 else share)
    if cpus <= 0 or cpus > share:  # Ray would wait for CPUs to become free, for ever
        needed = actors * max(cpus, CPUS_OF_FILES) + CPUS_BESIDE
        raise SystemExit(f"expected {needed:g} CPUs in the cluster, got {there:g}: lower --actors or --cpus")

    # The paths whose rows are written. They are kept at the end too, so that a second run finds nothing to do.
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="path", checkpoint_path=f"{out.rstrip('/')}-checkpoint", delete_checkpoint_on_success=False
    )
    encoded = ray.data.read_binary_files(
        images,
        include_paths=True,
        file_extensions=[suffix.removeprefix(".") for suffix in SUFFIXES],
        num_cpus=CPUS_OF_FILES,
    )
    answers = encoded.map_batches(
        Classifier,
        fn_constructor_kwargs={"model": model, "outputs": outputs and outputs.split(",")},
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=cpus,
        num_gpus=gpus,
        batch_size=batch_size,
    )
    answers.write_parquet(out, ray_remote_args={"num_cpus": CPUS_OF_FILES})


if __name__ == "__main__":
    typer.run(main)
