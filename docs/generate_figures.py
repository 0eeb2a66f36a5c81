"""Write docs/figures from this file and pyproject.toml: `python -m docs.generate_figures` in the repository's root."""

import re
import tomllib
from pathlib import Path
from typing import Any

from docs.drawing import Arrow, Box, badge, diagram
from mobilevit_fast.files import write_atomically

FOLDER = Path(__file__).with_name("figures")
PROJECT = Path(__file__).parents[1] / "pyproject.toml"

DIAGRAMS: dict[str, tuple[str, dict[str, Box], tuple[Arrow, ...]]] = {
    "architecture": (
        "The way of an image, and of a weight",
        {
            "files": Box(0, 0, "photo, array, tensor"),
            "images": Box(0, 1, "images/\ndecode, resize, crop,\nnormalise: x (N, 3, H, W)"),
            "model": Box(0, 2, "a model\nof transformers, timm\nor models/"),
            "fused": Box(0, 3, "acceleration/fused.py\nfused or original?", True),
            "original": Box(0, 4, "the original modules\ntraining, gradients,\nhooks, transforms"),
            "overload": Box(1, 4, "torch.ops.mobilevit_fast\nOP.BACKEND", True),
            "cpu": Box(0, 5, "csrc/cpu", True),
            "cuda": Box(1, 5, "csrc/cuda", True),
            "triton": Box(2, 5, "kernels/triton", True),
            "reference": Box(2, 4, "kernels/reference"),
            "checkpoint": Box(2, 0, "checkpoint\nsafetensors, .pth, hub"),
            "parameters": Box(2, 1, "checkpoints/\nnames, sizes, one type:\nparameters of the model"),
            "parts": Box(2, 2, "acceleration/libraries\nwhich module is which\npart: parts.py"),
            "weights": Box(2, 3, "parameters.py\nscale and bias, layers\nstacked: kernels/weights.py"),
            "packed": Box(1, 3, "ops/registry.py\nchooses a backend and\npacks; watch.py checks"),
        },
        (
            Arrow("files", "images"),
            Arrow("images", "model"),
            Arrow("model", "fused", "class_swap.py"),
            Arrow("fused", "original"),
            Arrow("fused", "overload"),
            Arrow("overload", "cpu"),
            Arrow("overload", "cuda"),
            Arrow("overload", "triton"),
            Arrow("overload", "reference"),
            Arrow("checkpoint", "parameters"),
            Arrow("parameters", "parts"),
            Arrow("parts", "weights"),
            Arrow("weights", "packed"),
            Arrow("packed", "fused"),
        ),
    ),
    "engine": (
        "The way of an image through the threads of an engine",
        {
            "sources": Box(0, 0, "sources\nfolders, tables, tar,\nURLs, arrays"),
            "read": Box(1, 0, "reader threads\nbytes of files"),
            "decode": Box(2, 0, "decode threads\nRGB pixels", True),
            "resize": Box(2, 1, "the same threads\nresize_crop: a place\nin a uint8 batch", True),
            "model": Box(2, 2, "the model\nCPU: the same threads\nGPU: copy stream, graph", True),
            "answers": Box(1, 2, "answers\nin the order of sources"),
            "results": Box(0, 2, "parts on the disk\nor a generator"),
            "slots": Box(0, 1, "slots of memory\nas many as batches\non the way"),
        },
        (
            Arrow("sources", "read"),
            Arrow("read", "decode"),
            Arrow("decode", "resize"),
            Arrow("resize", "model"),
            Arrow("model", "answers"),
            Arrow("answers", "results"),
            Arrow("answers", "slots", "taken: free again"),
            Arrow("slots", "sources"),
        ),
    ),
    "class-swap": (
        "A module changes by its class alone",
        {
            "before": Box(0, 0, "layer\nMobileViTLayer"),
            "after": Box(1, 0, "the same layer\na subclass of MobileViTLayer", True),
            "state": Box(0.5, 1, "one __dict__\nparameters, buffers, children, hooks"),
            "restored": Box(2, 0, "the same layer\nMobileViTLayer"),
        },
        (
            Arrow("before", "after", "accelerate"),
            Arrow("after", "restored", "restore"),
            Arrow("before", "state"),
            Arrow("after", "state"),
        ),
    ),
    "cpu-inverted-residual": (
        "A task of the inverted residual on the CPU: a few rows of the result, within a core's cache",
        {
            "x": Box(0, 0, "rows of x\nread in place"),
            "expand": Box(1, 0, "expand 1x1\nmatrix product in\nregisters", True),
            "ring": Box(2, 0, "ring of rows\nexpanded channels,\nin the cache", True),
            "depthwise": Box(2, 1, "depthwise 3x3\nwindows of the ring", True),
            "project": Box(1, 1, "project 1x1\nmatrix product, sum", True),
            "y": Box(0, 1, "rows of y\nwritten once"),
        },
        (
            Arrow("x", "expand"),
            Arrow("expand", "ring"),
            Arrow("ring", "depthwise"),
            Arrow("depthwise", "project"),
            Arrow("project", "y"),
        ),
    ),
    "cuda-choice": (
        "Which kernel runs a call on an NVIDIA GPU",
        {
            "call": Box(0, 1, "a call\ntype, geometry, images"),
            "triton": Box(1, 0, "kernels/triton\nfloat32, other shapes,\nno CUDA library", True),
            "sm80": Box(1, 1, "csrc/cuda\nfloat16, bfloat16;\ncapability 8.0 and later", True),
            "sm90": Box(1, 2, "capability 9.0, SiLU,\nshapes of the three sizes\nfloat16 (most: bfloat16)"),
            "many": Box(2, 1.5, "csrc/cuda/sm90\nmany images: stem, strips,\nrows, conv3x3, stack", True),
            "few": Box(2, 2.5, "csrc/cuda/sm90/small_*\nup to about 8 images:\na region over all blocks", True),
        },
        (
            Arrow("call", "triton"),
            Arrow("call", "sm80"),
            Arrow("call", "sm90"),
            Arrow("sm90", "many"),
            Arrow("sm90", "few"),
        ),
    ),
    "triton-launches": (
        "Launches of Triton's kernels: an inverted residual of stride 1 (above), a transformer layer (below)",
        {
            "x": Box(0, 0, "x"),
            "expand": Box(1, 0, "conv2d_kernel\nexpand 1x1", True),
            "expanded": Box(2, 0, "E elements a pixel\nin global memory"),
            "project": Box(3, 0, "depthwise_project_kernel\n3x3, 1x1, sum", True),
            "tokens": Box(0, 1, "norm_linear_kernel\nquery, key, value", True),
            "attention": Box(1, 1, "attention_kernel", True),
            "sum": Box(2, 1, "norm_linear_kernel\nprojection, residual", True),
            "mlp": Box(3, 1, "norm_mlp_kernel\nMLP, residual", True),
        },
        (
            Arrow("x", "expand"),
            Arrow("expand", "expanded"),
            Arrow("expanded", "project"),
            Arrow("tokens", "attention"),
            Arrow("attention", "sum"),
            Arrow("sum", "mlp"),
        ),
    ),
    "emulator": (
        "One source of a CUDA kernel, two machines",
        {
            "kernel": Box(0, 0.5, "csrc/cuda/OP/OP_kernel.h\nkernel, launch, binding"),
            "device": Box(1, 0.5, "csrc/cuda/device.h\nall that a kernel uses\nof the device"),
            "nvcc": Box(2, 0, "nvcc\nintrinsics and PTX"),
            "gpu": Box(3, 0, "GPU\npytest -m gpu tests/cuda"),
            "cxx": Box(2, 1, "g++ with emulator/\nthreads are fibers", True),
            "cpu": Box(3, 1, "CPU\nsanitizers, shuffled threads,\nbytes and products counted", True),
        },
        (
            Arrow("kernel", "device"),
            Arrow("device", "nvcc"),
            Arrow("device", "cxx"),
            Arrow("nvcc", "gpu"),
            Arrow("cxx", "cpu"),
        ),
    ),
}


def badges() -> dict[str, str]:
    """Badges by file name, from pyproject.toml."""
    project: dict[str, Any] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    versions = [found[1] for text in project["classifiers"] if (found := re.fullmatch(r".* Python :: (3\.\d+)", text))]
    torch = next(text for text in project["dependencies"] if text.startswith("torch>"))
    found = re.fullmatch(r"torch>=(\d+)\.(\d+),<(\d+)\.(\d+)", torch)
    assert found is not None
    assert found[1] == found[3]
    return {
        "badge-python": badge("python", f"{versions[0]} to {versions[-1]}"),
        "badge-torch": badge("torch", f"{found[1]}.{found[2]} to {found[3]}.{int(found[4]) - 1}"),
        "badge-licence": badge("licence", project["license"]),
    }


def render() -> dict[str, str]:
    """Text of every file by its name."""
    texts = {name: diagram(*parts) for name, parts in DIAGRAMS.items()} | badges()
    return {f"{name}.svg": text for name, text in texts.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in render().items():
        write_atomically(FOLDER / name, text.encode())
