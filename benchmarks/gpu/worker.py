"""A process that measures one task: `python -m benchmarks.gpu.worker STAGE NUMBER FILE UNTIL`, for the command.

The stage `engine` may have a folder of photos before UNTIL.
"""

import gc
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.gpu import engine, models, ops, regions
from benchmarks.gpu.device import Gpu
from benchmarks.gpu.results import Results

STAGES: dict[str, ModuleType] = {"models": models, "ops": ops, "sm90-regions": regions, "engine": engine}
DEVICE_LOST = 75
"""Exit status: the device no longer answers this process; another one may go on."""


def main(arguments: list[str]) -> int:
    """Measure a task until a time of the system's clock; returns the exit status.

    ``counters`` runs each operator once for a profiler that watches, ``compile`` a compiled model for its cache.
    """
    if arguments[0] == "counters":
        return run_for_counters(Gpu())
    if arguments[0] == "compile":
        models.compile_ahead(models.compiled_ahead()[int(arguments[1])], Gpu())
        return 0
    stage, number, file, *photos, until = arguments
    options = {"photos": Path(photos[0])} if photos else {}
    module: Any = STAGES[stage]
    gc.freeze()  # a capture begins with a collection, which need not look at every module that was imported
    try:
        module.measure(module.tasks()[int(number)], Results(Path(file)), Gpu(), float(until) - time.time(), **options)
    except models.DeviceLost as error:
        print(f"the device does not answer any more: {error}")
        return DEVICE_LOST
    return 0


def run_for_counters(gpu: Any, size: str = "S", batch: int = 256, image_size: int = 256) -> int:
    """Call every different operator of a model once, packed and warm, where a profiler looks."""
    import torch

    with torch.inference_mode():
        for work in ops.works(size, batch, image_size):
            arguments = ops.materialized(work.call, gpu.device)
            images = [a for a in (arguments["x"], arguments.get("x2")) if a is not None]
            function = ops.builder("cuda", work.call, arguments)
            function(*images)
            gpu.profiled(lambda function=function, images=images: function(*images))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
