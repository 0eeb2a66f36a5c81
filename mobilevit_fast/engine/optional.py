"""Packages that some sources, formats and integrations need, and all else does not."""

import importlib
from typing import Any

_REQUIREMENTS = {"ray": "'ray[data,serve]>=2.58'"}
"""Names that pip installs, where it is more than the package by its own name."""


def needed(module: str, purpose: str) -> Any:
    """A module of a package that may be missing.

    Args:
        module: its full name.
        purpose: the beginning of the error, as "Parquet".

    Raises:
        ImportError: the package is not installed; the message says how it is.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise missing(package, purpose) from error


def missing(package: str, purpose: str) -> ImportError:
    """To be raised: a package is not installed."""
    remedy = f"pip install {_REQUIREMENTS.get(package, package)}"
    return ImportError(f"{purpose}: expected the package {package}, which is not installed ({remedy})")
