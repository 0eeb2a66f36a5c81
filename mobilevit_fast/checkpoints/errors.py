"""The one error this package raises for files it cannot use."""

_LONGEST_NAME = 120


class CheckpointError(ValueError):
    """A checkpoint that cannot be found, read, recognised or written.

    The message is one line: what was expected and what came.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def first_few(names: list[str], limit: int = 3) -> str:
    """The first names of a list for an error message: `a, b, c and 12 more`; of very long names their beginnings."""
    shown = ", ".join(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..." for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
