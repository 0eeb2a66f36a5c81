"""Downloads from the Hugging Face hub: one place that is quiet and fails in one line."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError

HUB_ERRORS = (OSError, HFValidationError)
"""Errors that a download raises: no connection, no such model, no such file, no permission, an id that is none."""


@dataclass(frozen=True)
class HubOptions:
    """Where and how to look for a model of the hub: what every ``from_pretrained`` takes, in one piece.

    Attributes:
        revision: branch, tag or commit.
        token: access token, or True for the stored one; not part of the repr.
        cache_dir: folder for downloads instead of the hub's own.
        local_files_only: use what was downloaded before, without a connection.
    """

    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False


def download(model_id: str, filename: str, options: HubOptions) -> Path:
    """The path of a model's file in the local cache, brought there if needed.

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
            revision=options.revision,
            token=options.token,
            cache_dir=None if options.cache_dir is None else Path(options.cache_dir),
            local_files_only=options.local_files_only,
        )
    finally:
        logger.setLevel(level)
    return Path(path)


def download_or_explain(
    source: str | os.PathLike[str], filename: str, options: HubOptions, *, holding: str = ""
) -> Path:
    """`download` for a source that is neither a folder nor a file here.

    Args:
        source: what the user named.
        filename: of the model's file.
        options: as for `download`.
        holding: what the error says of the model that was expected.

    Raises:
        OSError: there is nothing on the hub either.
    """
    name = os.fspath(source)
    try:
        return download(name, filename, options)
    except HUB_ERRORS as error:
        expected = f"a folder, a JSON file or the id of a model on the hub{holding}"
        raise OSError(f"{name}: expected {expected}; the hub gave: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The first line of an error's message that says something, or the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
