"""Packages that the engine needs for some sources and formats alone."""

import importlib
from typing import Any


def needed(module: str, purpose: str) -> Any:
    """A module of a package that may be missing.

    Args:
        module: its full name.
        purpose: the beginning of the error, as "Parquet".

    Raises:
        ImportError: the package is not installed.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f"{purpose}: expected the package {package}, which is not installed (pip install 'mobilevit_fast[engine]')"
        ) from error
