"""Errors as one line for people."""

import os

import torch

_SPEAKING = (ValueError, OSError, ImportError)
"""Errors that carry a message meant to be read; others are named by their class as well."""


def described(error: BaseException) -> str:
    """Message of an error, in one line; that of one nobody expected begins with its class."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        if isinstance(error.filename, str | bytes | os.PathLike):
            text = f"{os.fsdecode(error.filename)}: {text}"
    text = " ".join(text.split())
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in text:
        return "not enough memory"
    return text if text and isinstance(error, _SPEAKING) else f"{type(error).__name__}: {text}".rstrip(": ")
