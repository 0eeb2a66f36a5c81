"""How much a file may ask for before any memory is taken for it. Whoever wants more raises a number here.

    import mobilevit_fast as mvf
    mvf.limits.MAX_PIXELS = 64_000_000

On the command line that is `mobilevit-fast --set-limit MAX_PIXELS=64000000 classify ...`. The numbers hold for the
whole process. Pillow's own `PIL.Image.MAX_IMAGE_PIXELS` bounds what image files may hold.
"""

from typing import Any

MAX_PIXELS = 1 << 21
"""Pixels that an image may grow to by resizing and padding (Full HD), and those in one call from the command line."""

MAX_IMAGE_BYTES = 1 << 28
"""Size of an image's file, or of one inside an archive, where the engine reads it."""

MAX_PARAMETERS = 1 << 26
"""Parameters of a model, and elements of all tensors of a checkpoint; MobileViT-S has 5.6 million."""

MAX_CLASSES = 1 << 17
"""Classes of a model."""

MAX_PATCH_SIZE = 64
"""Height and width of the patches of a MobileViT block, to a multiple of which its features are resized."""

MAX_DILATION = 1 << 10
"""Dilations of a segmentation head."""

MAX_TENSORS = 10_000
"""Entries of a checkpoint's state dict; a MobileViT has fewer than 500."""

MAX_PICKLE_INSTRUCTIONS = 1_000_000
"""Instructions of a pickle of PyTorch, which are followed one by one; a MobileViT has fewer than 20,000."""

MAX_WRAPPERS = 8
"""Dictionaries around a state dict, each inside another."""

MAX_JSON_BYTES = 1 << 24
"""Size of a JSON file, and of the header of a safetensors file."""

MAX_JSON_DEPTH = 64
"""Lists and objects in a JSON file, each inside another."""

NAMES = tuple(name for name in dict(globals()) if name.startswith("MAX_"))


def raised(name: str) -> str:
    """The end of an error message that says how to get past a limit."""
    command = f"mobilevit-fast --set-limit {name}=... COMMAND"
    return f"at most {globals()[name]:,} (mobilevit_fast.limits.{name}, on the command line: {command})"


def check(name: str, value: int, what: str) -> None:
    """Raise a ValueError that begins with `what` and names the limit, unless `value` keeps to it."""
    if value > globals()[name]:
        raise ValueError(f"{what}: expected {raised(name)}, got {shortened(value)}")


def set_limit(name: str, value: int) -> None:
    """Set a limit by its name.

    Raises:
        ValueError: there is no such limit, or the value is not above 0.
    """
    if name not in NAMES:
        raise ValueError(f"expected the name of a limit, one of {', '.join(NAMES)}, got {name!r}")
    if value < 1:
        raise ValueError(f"{name}: expected a number above 0, got {value}")
    globals()[name] = value


def shortened(value: Any, longest: int = 200) -> str:
    """A value for a message. Python refuses to write integers of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a very large number"
    return text if len(text) <= longest else f"{text[:longest]}..."
