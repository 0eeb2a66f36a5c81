"""Environment of a measurement: machine, versions, commit."""

import datetime
import importlib.metadata
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks import freshness
from mobilevit_fast import info

_PEERS = ("openvino", "onnxruntime", "onnx", "onnxscript")
_STAMPED = {
    "cpu": ("torch", "transformers", "timm", "onnxruntime", "openvino"),
    "cuda": ("torch", "triton", "transformers", "timm"),
}
_REPOSITORY = Path(__file__).resolve().parents[1]


def head(threads: int, gpu: dict[str, Any] | None = None, **facts: Any) -> dict[str, Any]:
    """Facts that hold for every row of a run: machine, versions, commit, date, and other ``facts`` of the run.

    The stamp is the part of it that every row carries.
    """
    found = environment(threads)
    if gpu is None:
        device = {"device": found["cpu"]["name"], "driver": None, "threads": threads}
    else:
        found["gpu"] = gpu
        device = {"device": gpu["name"], "driver": gpu["driver"], "cuda": gpu["cuda"]}
    versions = {name: found["versions"].get(name) for name in _STAMPED["cpu" if gpu is None else "cuda"]}
    stamp = {**device, **versions, "commit": found["git"]["commit"], "date": found["date"]}
    return {"environment": found | facts, "stamp": stamp}


def environment(threads: int) -> dict[str, Any]:
    """Processor, versions, threads, date and commit, as plain values for JSON."""
    collected = info.collect()
    return {
        "cpu": {"name": collected["devices"][0]["description"], "cores": os.cpu_count(), **collected["cpu"]},
        "threads": threads,
        "versions": {**collected["versions"], **{name: _version(name) for name in _PEERS}},
        "platform": collected["platform"],
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "load_average": round(os.getloadavg()[0], 2),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "kernels": freshness.digests(),
        "git": {"commit": _git("rev-parse", "HEAD"), "dirty": _git("status", "--porcelain") not in ("", None)},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Output of a git command, None where there is no git or no repository."""
    try:
        result = subprocess.run(["git", *arguments], cwd=_REPOSITORY, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
