"""The programs that the stages run, by which the dry run tells the truth about them."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu import models, process
from benchmarks.gpu.plan import STAGES
from benchmarks.gpu.worker import STAGES as WORKERS

CHECK_LIBRARY = (
    "from mobilevit_fast import native; s = native.status()['cuda']; print(s.reason or s.path); "
    "raise SystemExit(not s.loaded)"
)
SANITIZED = "tests/cuda/test_operators.py::test_an_input_may_lie_anywhere"
"""One call of every operator's kernel, and a few more: what they do wrong in memory, they do here too."""
EVERY_KERNEL = "tests/cuda/test_every_kernel.py"
"""All kernels of the models' regions, as far as there is time."""
SANITIZER_ERRORS = 86
ALL_KERNELS = "-all-kernels"
"""Names the step without a filter, for a sanitizer that does not know the option."""
METRICS = (
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "lts__t_bytes.sum",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__inst_executed_pipe_tensor.sum",
    "sm__inst_executed_pipe_xu.sum",
    "l1tex__data_pipe_lsu_wavefronts.sum",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "l1tex__data_bank_conflicts_pipe_lsu.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "launch__registers_per_thread",
    "launch__waves_per_multiprocessor",
)
SECTIONS = ("SpeedOfLight", "MemoryWorkloadAnalysis", "ComputeWorkloadAnalysis", "Occupancy", "LaunchStats")
"""Sections that ncu knows by name on every chip: for one that does not have the metrics."""

_PLAIN = ("-p", "no:cacheprovider", "-p", "no:benchmark")
"""pytest-benchmark warns where tests run in parallel, and warnings are errors."""


class Step(NamedTuple):
    """A program of a stage: the seconds it may take, its environment, and when it is run, if not always."""

    name: str
    command: tuple[str, ...]
    seconds: float
    env: Mapping[str, str] = {}
    condition: str | None = None

    @property
    def text(self) -> str:
        """As in a shell, the interpreter by its usual name."""
        words = ["python" if word == sys.executable else word for word in self.command]
        quoted = [f'"{word}"' if " " in word else word for word in words]
        return " ".join([*(f"{name}={value}" for name, value in self.env.items()), *quoted])


def find_tool(name: str) -> str:
    """A tool of the CUDA toolkit: on PATH, or where the toolkit is; its bare name where it is nowhere."""
    nvcc = shutil.which("nvcc")
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    candidates = [Path(folder) / "bin" / name for folder in folders if folder]
    candidates += [Path(nvcc).resolve().parent / name] if nvcc else []
    found = shutil.which(name) or next((str(path) for path in candidates if path.is_file()), None)
    return found or name


def ahead() -> list[tuple[str, ...]]:
    """Programs that fill the compiler's cache beside the build and the tests."""
    worker = (sys.executable, "-m", "benchmarks.gpu.worker", "compile")
    return [(*worker, str(i)) for i in range(len(models.compiled_ahead()))]


def steps(
    stage: str, architecture: str, out: Path, scratch: Path, prebuilt: bool = False, photos: Path | None = None
) -> list[Step]:
    """Steps of a stage, in their order. ``scratch`` is for files that nobody needs afterwards.

    With ``prebuilt`` nothing is built: the libraries in the package's folder are those that are measured. ``photos``
    is a folder for the engine, which else makes some.
    """
    python = sys.executable
    if stage == "build":
        env = {"MVF_CUDA": "on", "MVF_CUDA_ARCHITECTURES": architecture}
        build = Step("build", (python, "setup.py", "build_ext", "--inplace"), 190, env)
        return [*([] if prebuilt else [build]), Step("load", (python, "-c", CHECK_LIBRARY), 20)]
    if stage == "test":
        pytest = (python, "-m", "pytest", "-m", "gpu", "-q", *_PLAIN)
        workers = ("-n", str(min(8, os.cpu_count() or 1))) if importlib.util.find_spec("xdist") else ()
        found = [*process.ROOT.glob("tests/cuda/test_sm90_*.py"), process.ROOT / "tests/cuda/test_strips.py"]
        newest = sorted(str(path.relative_to(process.ROOT)) for path in found)
        return [
            Step("sm90", (*pytest, *newest, *workers, f"--junitxml={scratch / 'sm90.xml'}"), 90),
            Step("cuda", (*pytest, "tests/cuda", "-x", f"--junitxml={scratch / 'cuda.xml'}"), 60),
            Step("engine", (*pytest, "tests/engine", f"--junitxml={scratch / 'engine.xml'}"), 60),
            Step("triton", (*pytest, "tests/triton", *workers, f"--junitxml={scratch / 'triton.xml'}"), 60),
            Step(
                "cuda-all",
                (*pytest, "tests/cuda", f"--junitxml={scratch / 'cuda-all.xml'}"),
                60,
                condition="if cuda failed",
            ),
        ]
    if stage in WORKERS:
        given = () if photos is None or stage != "engine" else (str(photos),)
        return [
            Step(
                task.name,
                (python, "-m", "benchmarks.gpu.worker", stage, str(i), str(file_of(out, stage)), *given),
                task.seconds,
            )
            for i, task in enumerate(WORKERS[stage].tasks())
        ]
    if stage == "sanitize":
        tests = (python, "-m", "pytest", "-m", "gpu", "-q", "-x", *_PLAIN)
        # Every tensor in an allocation of its own: in the blocks that torch keeps, out of bounds is a neighbour.
        env = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        options = ("--error-exitcode", str(SANITIZER_ERRORS), "--print-limit", "20")
        only = ("--kernel-name", "kns=mobilevit_fast")
        tool = find_tool("compute-sanitizer")
        return [
            Step(f"{check}{name}", (tool, "--tool", check, *options, *filters, *tests, test), 36, env, condition)
            for name, filters, test, condition in (
                ("", only, SANITIZED, None),
                (ALL_KERNELS, (), SANITIZED, "if it did not begin"),
                ("-regions", only, EVERY_KERNEL, None),
            )
            for check in ("memcheck", "racecheck")
        ]
    if stage == "counters":
        watched = (python, "-m", "benchmarks.gpu.worker", "counters")
        ncu = (
            *(find_tool("ncu"), "--csv", "--page", "raw", "--print-units", "base", "--profile-from-start", "off"),
            *("--clock-control", "none", "--target-processes", "all"),
        )
        sections = tuple(word for name in SECTIONS for word in ("--section", name))
        return [
            Step("metrics", (*ncu, "--metrics", ",".join(METRICS), *watched), 60),
            Step("sections", (*ncu, *sections, *watched), 45, condition="if metrics gave nothing"),
        ]
    raise ValueError(f"expected one of {', '.join(STAGES)}, got {stage}")


def file_of(out: Path, stage: str) -> Path:
    """Where a stage's results are."""
    return out / f"gpu-{stage}.json"
