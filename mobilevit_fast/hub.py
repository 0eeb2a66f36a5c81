"""Downloads from the Hugging Face hub: one place that is quiet and fails in one line."""

import logging
import os
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError

HUB_ERRORS = (OSError, HFValidationError)
"""What a download raises: no connection, no such model, no such file, no permission, an id that is none."""


def download(
    model_id: str,
    filename: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The path of a model's file in the local cache, brought there if needed; arguments as in ``hf_hub_download``.

    The hub's client logs every retry. That is silenced here, since the exception reports the outcome once.

    Raises:
        OSError, HFValidationError: those of huggingface_hub; :func:`reason` makes one line of them.
    """
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        path = hf_hub_download(
            model_id,
            filename,
            revision=revision,
            token=token,
            cache_dir=None if cache_dir is None else Path(cache_dir),
            local_files_only=local_files_only,
        )
    finally:
        logger.setLevel(level)
    return Path(path)


def reason(error: Exception) -> str:
    """The first line of an error's message that says something, or the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
