"""Errors as one line for people."""

import torch

_SPEAKING = (ValueError, OSError, ImportError)
"""Errors that carry a message meant to be read; others are named by their class as well."""


def described(error: BaseException) -> str:
    """Message of an error, in one line; that of one nobody expected begins with its class."""
    text = " ".join(str(error).split())
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in text:
        return "not enough memory"
    return text if text and isinstance(error, _SPEAKING) else f"{type(error).__name__}: {text}".rstrip(": ")
