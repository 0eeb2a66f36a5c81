"""The thin layer over `torch.cuda`: clock, graphs, memory, and what the GPU is and does at best."""

import re
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

_NAME = 40
"""Characters of a kernel's name."""


def available() -> bool:
    """Whether torch can use a GPU."""
    return torch.cuda.is_available()


def architecture() -> str:
    """The first GPU's, as the build takes it."""
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}{minor}"


def facts() -> dict[str, Any]:
    """The first GPU in plain values for JSON."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "driver": driver(),
        "cuda": torch.version.cuda,
    }


def driver() -> str | None:
    """Version of the driver, None where nvidia-smi does not say."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def _replay(graph: torch.cuda.CUDAGraph, call: Callable[[], Tensor]) -> None:
    """Replay a graph, which reads tensors that only the captured call owns: weights that it packed, images."""
    graph.replay()


def kernel_name(name: str) -> str:
    """The class of one of this package's kernels with its first parameters; empty for any other kernel."""
    found = re.search(r"mobilevit_fast::cuda::start\w*<(.*)", name)
    return found[1].replace("mobilevit_fast::cuda::", "")[:_NAME].strip() if found else ""


class Gpu:
    """The first GPU, as what measures needs it."""

    def __init__(self) -> None:
        self.device = torch.device("cuda", 0)
        self.l2_bytes = int(torch.cuda.get_device_properties(0).L2_cache_size)
        self.capability = facts()["capability"]

    def elapsed(self, call: Callable[[], Any], count: int) -> float:
        """Seconds of the device for so many calls, one after the other."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def synchronize(self) -> None:
        """Wait for the device; raises what its work raised."""
        torch.cuda.synchronize()

    def capture(self, call: Callable[[], Tensor], pool: Any = None) -> tuple[Callable[[], None], Tensor, Any]:
        """A graph of a call: what replays it, its result, and its memory, which other graphs may use in turn."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.inference_mode():
            for _ in range(2):  # packs weights and chooses algorithms, which a capture must not do
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph, pool=pool):
            result = call()
        return partial(_replay, graph, call), result, graph.pool()

    def reset_peak(self) -> int:
        """Begin a peak of memory; returns the bytes that are in use already."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        """Most bytes in use since."""
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()

    def release(self) -> None:
        """Give back memory that nothing uses."""
        torch.cuda.empty_cache()

    @property
    def ceiling_sizes(self) -> tuple[int, int]:
        """Bytes to copy, and rows of the matrices to multiply, for a measurement of what the GPU does at best."""
        return 2 << 30, 8192

    def kernels(self, call: Callable[[], Any]) -> list[str]:
        """Names of this package's kernels that a call starts, without what all of them begin with, cut off."""
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
            call()
            torch.cuda.synchronize()
        return [name for event in profile.events() if (name := kernel_name(event.name))]

    def profiled(self, call: Callable[[], Any]) -> None:
        """Have a profiler that waits for it look at a call."""
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
