"""One image that is to be answered, and where its content comes from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, TypeAlias

import numpy as np
import torch
from PIL import Image

from mobilevit_fast.images import ImageError

Content: TypeAlias = bytes | np.ndarray | torch.Tensor | Image.Image
"""An encoded image, an array or tensor (height, width, 3) or (3, height, width), or a PIL image."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An image by its name.

    Attributes:
        name: unique within one call of `iterate`.
        content: the image, or a function that reads it.
    """

    name: str
    content: Content | Callable[[], Content]

    @property
    def held(self) -> int:
        """Bytes of an encoded image that it holds in memory already, as those in tar files are."""
        return len(self.content) if isinstance(self.content, bytes | bytearray | memoryview) else 0

    def read(self) -> Content:
        """The image, read now; any thread may call it.

        Raises:
            OSError, ImageError: there is none; the message is one line and does not name the source.
        """
        return self.content() if callable(self.content) else self.content


def failing(name: str, error: Exception | str) -> Source:
    """A source that there is no image for: its `read` says why."""
    message = error if isinstance(error, str) else explained(error)
    return Source(name, partial(_fail, message))


def _fail(message: str) -> NoReturn:
    raise ImageError(message)


def explained(error: Exception) -> str:
    """One line on an error of reading, without the name of what was read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError) or _is_no_path(error):
        return "no such file or folder"
    if isinstance(error, IsADirectoryError):
        return "expected an image file, got a folder"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _is_no_path(error: Exception) -> bool:
    """Whether it is what the system's calls raise for text that no path can be: a NUL in it, or half a character."""
    return isinstance(error, UnicodeEncodeError) or (isinstance(error, ValueError) and "null byte" in str(error))
