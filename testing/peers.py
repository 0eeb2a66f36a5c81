"""Imports of the libraries the project is compared with, on machines where torchvision has no binary for this torch.

timm and parts of transformers import torchvision, and torchvision registers fake kernels for its C++ operators as soon
as it is imported. Where its extension cannot load, these operators do not exist and the import fails; declaring their
names is enough, because no test calls them.
"""

import functools
from types import ModuleType

import torch

_OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "qroi_align",
    "roi_pool",
    "ps_roi_align",
    "ps_roi_pool",
    "deform_conv2d",
    "_roi_align_backward",
    "_roi_pool_backward",
    "_ps_roi_align_backward",
    "_ps_roi_pool_backward",
    "_deform_conv2d_backward",
)


@functools.cache
def _declare_torchvision_operators() -> torch.library.Library | None:
    if torch.version.cuda is not None:
        return None  # a CUDA build of torch comes with a torchvision whose extension loads
    library = torch.library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        library.define(f"{name}() -> ()")
    return library


def import_transformers() -> ModuleType:
    """The transformers package, importable whether or not torchvision's extension is."""
    _declare_torchvision_operators()
    import transformers

    return transformers


def import_timm() -> ModuleType:
    """The timm package, importable whether or not torchvision's extension is."""
    _declare_torchvision_operators()
    import timm

    return timm
